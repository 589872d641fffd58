#include "src/cli/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "src/cli/fake_conversation.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

std::vector<eval::WrittenDialogue> TwoDialogues() {
  return {{"a", "sys", {{"one", {}}, {"two", {}}}}, {"b", "", {{"bad", {}}, {"never", {}}}}, {"c", "", {{"x", {}}}}};
}

std::unique_ptr<Conversation> FailsOnBad() {
  return std::make_unique<FakeConversation>([](std::span<const ChatMessage> messages) -> Result<std::string> {
    if (messages.back().content == "bad") return Status(StatusCode::kContextLength, "5,000 tokens, limit 4,096");
    return "to " + messages.back().content;
  });
}

TEST(RunTest, ReportsEveryTurnWithTheFieldsOfTheSchema) {
  const std::vector<eval::WrittenDialogue> dialogues = TwoDialogues();
  const DialogueRunResult result = RunDialogues(std::span(dialogues).first(1), FailsOnBad, {});
  EXPECT_EQ(result.failed, 0);
  ASSERT_EQ(result.dialogues.size(), 1u);
  EXPECT_EQ(result.dialogues[0]["id"], "a");
  const Json expected = Json::parse(R"([
    {"answer":"to one","prompt_tokens":20,"cached_tokens":0,"new_tokens":20,"output_tokens":6,"ttft_ms":12.5,
     "tpot_ms":2.5,"prefill_density":1.0,"decode_kv_fraction":null,"sync":"extend","stop_reason":"end_of_text"},
    {"answer":"to two","prompt_tokens":40,"cached_tokens":20,"new_tokens":20,"output_tokens":6,"ttft_ms":12.5,
     "tpot_ms":2.5,"prefill_density":1.0,"decode_kv_fraction":null,"sync":"extend","stop_reason":"end_of_text"}])");
  EXPECT_EQ(result.dialogues[0]["turns"], expected);
  EXPECT_FALSE(result.dialogues[0].contains("error"));
}

TEST(RunTest, AFailingDialogueIsReportedAndTheOthersGoOn) {
  const std::vector<eval::WrittenDialogue> dialogues = TwoDialogues();
  const DialogueRunResult result = RunDialogues(dialogues, FailsOnBad, {});
  EXPECT_TRUE(result.status.ok());
  EXPECT_EQ(result.failed, 1);
  ASSERT_EQ(result.dialogues.size(), 3u);
  EXPECT_EQ(result.dialogues[1]["error"], "5,000 tokens, limit 4,096");
  EXPECT_EQ(result.dialogues[1]["turns"].size(), 0u);
  EXPECT_EQ(result.dialogues[2]["turns"][0]["answer"], "to x");
}

TEST(RunTest, ShowsTheDialogueForPeople) {
  std::vector<eval::WrittenDialogue> dialogues = TwoDialogues();
  dialogues[0].turns[0].user = std::string(5000, 'l') + " the question";
  std::ostringstream out;
  DialogueRunOptions options;
  options.out = &out;
  RunDialogues(dialogues, FailsOnBad, options);
  EXPECT_THAT(out.str(), HasSubstr("--- a, turn 1 of 2\nuser: [... 4,413 bytes not shown ...] lll"));
  EXPECT_THAT(out.str(), HasSubstr("the question\nanswer: to lll"));
  EXPECT_THAT(out.str(), HasSubstr("[40 prompt tokens: 20 new, 20 reused (extend) | TTFT 12.5 ms | TPOT 2.5 ms"));
  EXPECT_THAT(out.str(), HasSubstr("[error: 5,000 tokens, limit 4,096]"));
}

TEST(RunTest, AnInterruptEndsTheRunAndKeepsWhatIsDone) {
  std::atomic<bool> cancel{false};
  const std::vector<eval::WrittenDialogue> dialogues = TwoDialogues();
  DialogueRunOptions options;
  options.control.cancel = &cancel;
  const DialogueRunResult result = RunDialogues(
      dialogues,
      [&] {
        return std::make_unique<FakeConversation>([&](std::span<const ChatMessage> messages) -> Result<std::string> {
          if (messages.back().content == "two") cancel = true;
          return std::string("answer");
        });
      },
      options);
  EXPECT_EQ(result.status.code(), StatusCode::kCancelled);
  ASSERT_EQ(result.dialogues.size(), 1u);
  EXPECT_EQ(result.dialogues[0]["turns"].size(), 2u);
  EXPECT_EQ(result.dialogues[0]["turns"][1]["stop_reason"], "cancelled");
  EXPECT_EQ(result.dialogues[0]["error"], "interrupted");
}

TEST(RunTest, EveryDialogueGoesOnFromTheStoredOneAndTurnsAreSaved) {
  const std::vector<eval::WrittenDialogue> dialogues = TwoDialogues();
  DialogueRunOptions options;
  options.past = {{"system", "old"}, {"user", "before"}, {"assistant", "yes"}};
  std::vector<std::string> saved;
  options.save = [&](const Conversation&, std::span<const ChatMessage> messages) {
    saved.push_back(messages[0].content + std::to_string(messages.size()));
    return Status::Ok();
  };
  RunDialogues(std::span(dialogues).first(1), FailsOnBad, options);
  EXPECT_EQ(saved, (std::vector<std::string>{"old5", "old7"}));
  options.save = [](const Conversation&, std::span<const ChatMessage>) {
    return Status(StatusCode::kResourceExhausted, "disk full");
  };
  const DialogueRunResult result = RunDialogues(std::span(dialogues).first(1), FailsOnBad, options);
  EXPECT_EQ(result.failed, 1);
  EXPECT_EQ(result.dialogues[0]["error"], "disk full");
  EXPECT_EQ(result.dialogues[0]["turns"].size(), 1u);
}

TEST(RunTest, AClosedOutputEndsTheRun) {
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  DialogueRunOptions options;
  options.out = &out;
  const std::vector<eval::WrittenDialogue> dialogues = TwoDialogues();
  const DialogueRunResult result = RunDialogues(dialogues, FailsOnBad, options);
  EXPECT_EQ(result.status.code(), StatusCode::kIoError);
  EXPECT_EQ(result.dialogues.size(), 1u);
}

}  // namespace
}  // namespace loopserve
