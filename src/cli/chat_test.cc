#include "src/cli/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <fstream>
#include <sstream>

#include "eval/dialogue_file.h"
#include "src/base/temp_dir.h"
#include "src/cli/fake_conversation.h"

namespace loopserve {
namespace {

using testing::HasSubstr;
using testing::Not;

// Lines from a list; "^C" stands for an interrupt at the prompt.
class ScriptedLines : public LineSource {
 public:
  explicit ScriptedLines(std::deque<std::string> lines) : lines_(std::move(lines)) {}
  Result<LineKind> Read(std::string* line) override {
    if (lines_.empty()) return LineKind::kEnd;
    *line = lines_.front();
    lines_.pop_front();
    return *line == "^C" ? LineKind::kInterrupted : LineKind::kLine;
  }

 private:
  std::deque<std::string> lines_;
};

struct ChatRun {
  Status status;
  std::string out;
  std::string notes;
};

ChatRun Play(FakeConversation& conversation, std::deque<std::string> lines, bool interactive,
             ChatOptions options = {}) {
  ScriptedLines in(std::move(lines));
  std::ostringstream out, notes;
  options.interactive = interactive;
  ChatRun run;
  run.status = ChatLoop(conversation, in, out, notes, options).Run();
  run.out = out.str();
  run.notes = notes.str();
  return run;
}

TEST(ChatTest, WithoutATerminalOnlyAnswersAreWritten) {
  FakeConversation conversation;
  const ChatRun run = Play(conversation, {"one", "", "two"}, false);
  ASSERT_TRUE(run.status.ok());
  EXPECT_EQ(run.out, "echo: one\necho: two\n");
  EXPECT_EQ(run.notes, "");
}

TEST(ChatTest, EveryTurnSeesTheWholeDialogue) {
  FakeConversation conversation;
  ChatOptions options;
  options.system = "be brief";
  ASSERT_TRUE(Play(conversation, {"one", "two"}, true, options).status.ok());
  ASSERT_EQ(conversation.asked.size(), 2u);
  std::string roles;
  for (const ChatMessage& message : conversation.asked[1]) roles += message.role + "=" + message.content + ";";
  EXPECT_EQ(roles, "system=be brief;user=one;assistant=echo: one;user=two;");
}

TEST(ChatTest, ABackslashJoinsLines) {
  FakeConversation conversation;
  Play(conversation, {"a\\", "b\\", "c", "d\\"}, false);
  ASSERT_EQ(conversation.asked.size(), 2u);
  EXPECT_EQ(conversation.asked[0].back().content, "a\nb\nc");
  EXPECT_EQ(conversation.asked[1].back().content, "d\n");
}

TEST(ChatTest, CommandsAndEscapedSlashes) {
  FakeConversation conversation;
  const ChatRun run = Play(conversation, {"/help", "one", "/stats", "//path", "/nonsense", "/quit", "never"}, true);
  ASSERT_TRUE(run.status.ok());
  EXPECT_THAT(run.out, HasSubstr("/save FILE"));
  EXPECT_THAT(run.out, HasSubstr("turn 1: 10 prompt tokens: 10 new, 0 reused (extend) | TTFT 12.5 ms | TPOT 2.5 ms"));
  EXPECT_THAT(run.out, HasSubstr("10 of 4,096 tokens held, 10.0 KiB of KV"));
  EXPECT_THAT(run.out, HasSubstr("echo: /path\n"));
  EXPECT_THAT(run.out, Not(HasSubstr("never")));
  EXPECT_THAT(run.notes, HasSubstr("no such command: /nonsense"));
}

TEST(ChatTest, ResetKeepsTheSystemMessageAndSystemReplacesIt) {
  FakeConversation conversation;
  ChatOptions options;
  options.system = "s1";
  Play(conversation, {"one", "/reset", "two", "/system s2 with words", "three", "/system", "four"}, true, options);
  ASSERT_EQ(conversation.asked.size(), 4u);
  EXPECT_EQ(conversation.asked[1].size(), 2u);
  EXPECT_EQ(conversation.asked[1][0].content, "s1");
  EXPECT_EQ(conversation.asked[2][0].content, "s2 with words");
  EXPECT_EQ(conversation.asked[2].size(), 4u);
  EXPECT_EQ(conversation.asked[3][0].role, "user");
}

TEST(ChatTest, AnInterruptStopsTheAnswerAndTheChatGoesOn) {
  std::atomic<bool> interrupt{false};
  FakeConversation conversation([&](std::span<const ChatMessage> messages) -> Result<std::string> {
    if (messages.back().content == "long") interrupt = true;
    return std::string("answer");
  });
  ChatOptions options;
  options.interrupt = &interrupt;
  options.clear_interrupt = [&] { interrupt = false; };
  const ChatRun run = Play(conversation, {"^C", "long", "short"}, true, options);
  ASSERT_TRUE(run.status.ok());
  EXPECT_THAT(run.notes, HasSubstr("Ctrl-D ends the chat"));
  EXPECT_THAT(run.notes, HasSubstr("(stopped)"));
  EXPECT_THAT(run.out, HasSubstr("answer\n"));
  EXPECT_EQ(conversation.asked[1].size(), 3u) << "the cut answer stays in the dialogue";
}

TEST(ChatTest, AnInterruptBeforeTheAnswerDropsTheMessage) {
  bool first = true;
  FakeConversation conversation([&](std::span<const ChatMessage>) -> Result<std::string> {
    if (std::exchange(first, false)) return Status(StatusCode::kCancelled, "cancelled");
    return std::string("fine");
  });
  const ChatRun run = Play(conversation, {"one", "two"}, true);
  EXPECT_THAT(run.notes, HasSubstr("forgotten"));
  EXPECT_EQ(conversation.asked[1].size(), 1u);
}

TEST(ChatTest, WithoutATerminalAnInterruptOrAnErrorEndsTheProgram) {
  FakeConversation fails([](std::span<const ChatMessage>) -> Result<std::string> {
    return Status(StatusCode::kContextLength, "too long");
  });
  EXPECT_EQ(Play(fails, {"one", "two"}, false).status.code(), StatusCode::kContextLength);
  EXPECT_EQ(fails.asked.size(), 1u);
  FakeConversation conversation;
  EXPECT_EQ(Play(conversation, {"^C"}, false).status.code(), StatusCode::kCancelled);
  EXPECT_EQ(Play(conversation, {"/nonsense"}, false).status.code(), StatusCode::kInvalidArgument);
}

TEST(ChatTest, AnErrorAtTheTerminalDropsTheMessageAndGoesOn) {
  FakeConversation conversation([](std::span<const ChatMessage> messages) -> Result<std::string> {
    if (messages.back().content == "huge") return Status(StatusCode::kContextLength, "too long");
    return std::string("fine");
  });
  const ChatRun run = Play(conversation, {"huge", "caf\xE9", "small"}, true);
  ASSERT_TRUE(run.status.ok());
  EXPECT_THAT(run.notes, HasSubstr("error: too long"));
  EXPECT_THAT(run.notes, HasSubstr("not valid UTF-8"));
  ASSERT_EQ(conversation.asked.size(), 2u);
  EXPECT_EQ(conversation.asked[1].size(), 1u);
}

TEST(ChatTest, ASavedDialogueCanBeReadBack) {
  TempDir dir;
  const std::string path = dir.path() / "saved.jsonl";
  FakeConversation conversation;
  ChatOptions options;
  options.system = "s";
  const ChatRun run = Play(conversation, {"/save " + path, "one", "two", "/save " + path, "/save"}, true, options);
  EXPECT_THAT(run.notes, HasSubstr("nothing to save"));
  EXPECT_THAT(run.notes, HasSubstr("name a file"));
  const Result<std::vector<eval::WrittenDialogue>> dialogues = eval::ReadDialogueFile(path);
  ASSERT_TRUE(dialogues.ok()) << dialogues.status().message();
  ASSERT_EQ(dialogues->size(), 1u);
  EXPECT_EQ((*dialogues)[0].system, "s");
  ASSERT_EQ((*dialogues)[0].turns.size(), 2u);
  EXPECT_EQ((*dialogues)[0].turns[1].reference, std::vector<std::string>{"echo: two"});
}

TEST(ChatTest, AStoredDialogueGoesOnAndEveryTurnIsSaved) {
  FakeConversation conversation;
  std::vector<size_t> saved;
  ChatOptions options;
  options.past = {{"system", "old"}, {"user", "before"}, {"assistant", "yes"}};
  options.system = "new";
  options.save = [&](std::span<const ChatMessage> messages) {
    saved.push_back(messages.size());
    return Status::Ok();
  };
  ASSERT_TRUE(Play(conversation, {"one", "two"}, false, options).status.ok());
  ASSERT_EQ(conversation.asked[0].size(), 4u);
  EXPECT_EQ(conversation.asked[0][0].content, "new");
  EXPECT_EQ(conversation.asked[0][1].content, "before");
  EXPECT_EQ(saved, (std::vector<size_t>{5, 7}));
  options.save = [](std::span<const ChatMessage>) { return Status(StatusCode::kResourceExhausted, "disk full"); };
  FakeConversation other;
  EXPECT_EQ(Play(other, {"one", "two"}, false, options).status.code(), StatusCode::kResourceExhausted);
  const ChatRun run = Play(other, {"one", "two"}, true, options);
  EXPECT_TRUE(run.status.ok()) << "at the terminal it is said, and the chat goes on";
  EXPECT_THAT(run.notes, HasSubstr("disk full"));
}

TEST(ChatTest, AClosedOutputEndsIt) {
  FakeConversation conversation;
  ScriptedLines in({"one", "two"});
  std::ostringstream out, notes;
  out.setstate(std::ios::badbit);
  EXPECT_EQ(ChatLoop(conversation, in, out, notes, {}).Run().code(), StatusCode::kIoError);
  EXPECT_EQ(conversation.asked.size(), 1u);
}

}  // namespace
}  // namespace loopserve
