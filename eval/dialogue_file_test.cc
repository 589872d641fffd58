#include "eval/dialogue_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace loopserve::eval {
namespace {

using testing::HasSubstr;

Result<std::vector<WrittenDialogue>> Read(const std::string& text) {
  std::istringstream in(text);
  return ReadDialogues(in, "d.jsonl");
}

std::string ManyMembers(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += ",\"k" + std::to_string(i) + "\":1";
  return text;
}

TEST(DialogueFileTest, ReadsAllFieldsAndSkipsBlankLines) {
  const auto dialogues = Read(
      "\n{\"id\":\"a\",\"system\":\"s\",\"turns\":[{\"user\":\"q\",\"reference\":[\"x\",\"y\"]},{\"user\":\"r\"}]}\r\n"
      "  \n{\"turns\":[{\"user\":\"\\u00e4\"}]}");
  ASSERT_TRUE(dialogues.ok()) << dialogues.status().message();
  ASSERT_EQ(dialogues->size(), 2u);
  EXPECT_EQ((*dialogues)[0].id, "a");
  EXPECT_EQ((*dialogues)[0].system, "s");
  EXPECT_EQ((*dialogues)[0].turns[0].reference, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ((*dialogues)[1].id, "line-4");
  EXPECT_EQ((*dialogues)[1].turns[0].user, "\xC3\xA4");
}

TEST(DialogueFileTest, ErrorsNameTheLineAndTheField) {
  const struct {
    std::string line;
    const char* message;
  } cases[] = {
      {"{", "not valid JSON"},
      {"[]", "must be an object"},
      {"{}", "\"turns\" is missing"},
      {R"({"turns":[]})", "\"turns\" must be a list"},
      {R"({"turns":{}})", "\"turns\" must be a list"},
      {R"({"turns":[1]})", "\"turns\" must be an object"},
      {R"({"turns":[{}]})", "\"user\" of turn 1 is missing"},
      {R"({"turns":[{"user":"a"},{"user":7}]})", "\"user\" of turn 2 must be a text"},
      {R"({"turns":[{"user":" \n"}]})", "\"user\" of turn 1 is empty"},
      {R"({"turns":[{"user":"a","reference":"b"}]})", "\"reference\" of turn 1 must be a list"},
      {R"({"turns":[{"user":"a","reference":[1]}]})", "\"reference\" of turn 1 must be a list"},
      {R"({"turns":[{"user":"a","refrence":[]}]})", "unknown field \"refrence\" of turn 1"},
      {R"({"turns":[{"user":"a"}],"sytem":"x"})", "unknown field \"sytem\""},
      {R"({"turns":[{"user":"a"}],"id":3})", "\"id\" must be a text"},
      {R"({"turns":[{"user":"a"}],"system":null})", "\"system\" must be a text"},
      {R"({"turns":[{"user":"\ud800"}]})", "not valid JSON"},
      {"{\"turns\":[{\"user\":\"caf\xE9\"}]}", "not valid UTF-8 at byte 23"},
      {std::string("\0\x01\x02", 3), "not valid JSON"},
      {R"({"id":"first","turns":[{"user":"a"}]})", "\"first\" was given before"},
      {std::string(1000000, '['), "nested deeper than 100 levels"},
      {"{\"x\":" + std::string(100000, '[') + std::string(100000, ']') + ",\"y\":1,\"z\":1}",
       "nested deeper than 100 levels"},
      {"{\"a\":1" + ManyMembers(100000) + "}", "more than 1000 members"},
  };
  for (const auto& c : cases) {
    const auto dialogues = Read("{\"id\":\"first\",\"turns\":[{\"user\":\"a\"}]}\n\n" + c.line + "\n");
    EXPECT_EQ(dialogues.status().code(), StatusCode::kCorruptData) << c.line.substr(0, 80);
    EXPECT_THAT(dialogues.status().message(), HasSubstr(c.message));
    EXPECT_THAT(dialogues.status().message(), HasSubstr("d.jsonl, line 3"));
  }
}

TEST(DialogueFileTest, AFileWithoutDialoguesIsAnError) {
  EXPECT_THAT(Read("").status().message(), HasSubstr("no dialogue"));
  EXPECT_THAT(Read("\n\n").status().message(), HasSubstr("no dialogue"));
  EXPECT_EQ(ReadDialogueFile("/nonexistent/d.jsonl").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadDialogueFile("/").status().code(), StatusCode::kIoError);
}

TEST(DialogueFileTest, WritesWhatItReads) {
  const WrittenDialogue dialogue{"id \"quoted\"", "sys\ntem", {{"u\tser", {"r"}}, {"\xF0\x9F\x98\x80", {}}}};
  const std::string line = FormatDialogue(dialogue);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto back = Read(line);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ((*back)[0].id, dialogue.id);
  EXPECT_EQ((*back)[0].system, dialogue.system);
  EXPECT_EQ((*back)[0].turns[0].user, dialogue.turns[0].user);
  EXPECT_EQ((*back)[0].turns[0].reference, dialogue.turns[0].reference);
  EXPECT_EQ((*back)[0].turns[1].user, dialogue.turns[1].user);
}

TurnTask FullTask() {
  TurnTask task;
  task.dataset = "trec";
  task.metric = Metric::kClassAccuracy;
  task.position = Position::kMiddle;
  task.dependency = Dependency::kCross;
  task.text_turns = {1, 2};
  task.max_answer_tokens = 64;
  task.first_line_only = true;
  task.all_classes = {"Date", "Caf\xC3\xA9"};
  task.source_ids = {"a#2", "b"};
  task.cut_tokens = 1234;
  return task;
}

TEST(DialogueFileTest, TasksComeBackAsTheyWere) {
  WrittenDialogue dialogue{"d", "", {{"q", {"Date"}, std::nullopt}, {"r", {"Food"}, FullTask()}}};
  for (const Metric metric : AllOf<Metric>()) {
    dialogue.turns[1].task->metric = metric;
    const auto back = Read(FormatDialogue(dialogue));
    ASSERT_TRUE(back.ok()) << back.status().message();
    EXPECT_FALSE((*back)[0].turns[0].task.has_value());
    ASSERT_TRUE((*back)[0].turns[1].task.has_value());
    const TurnTask& task = *(*back)[0].turns[1].task;
    EXPECT_EQ(task.dataset, "trec");
    EXPECT_EQ(task.metric, metric);
    EXPECT_EQ(task.position, Position::kMiddle);
    EXPECT_EQ(task.dependency, Dependency::kCross);
    EXPECT_EQ(task.text_turns, (std::vector<int>{1, 2}));
    EXPECT_EQ(task.max_answer_tokens, 64);
    EXPECT_TRUE(task.first_line_only);
    EXPECT_EQ(task.all_classes, FullTask().all_classes);
    EXPECT_EQ(task.source_ids, FullTask().source_ids);
    EXPECT_EQ(task.cut_tokens, 1234);
    EXPECT_TRUE(task.truncated());
  }
}

TEST(DialogueFileTest, AShortTaskHasItsDefaults) {
  const auto read = Read(
      R"({"turns":[{"user":"q","task":{"dataset":"x","metric":"f1","position":"end","dependency":"same","max_answer_tokens":5}}]})");
  ASSERT_TRUE(read.ok()) << read.status().message();
  const TurnTask& task = *(*read)[0].turns[0].task;
  EXPECT_TRUE(task.text_turns.empty());
  EXPECT_FALSE(task.first_line_only);
  EXPECT_FALSE(task.truncated());
}

TEST(DialogueFileTest, BadTasksNameTheirField) {
  const std::string good = R"("dataset":"x","metric":"f1","position":"end","dependency":"same","max_answer_tokens":5)";
  const struct {
    std::string task;
    const char* message;
  } cases[] = {
      {"7", "\"task\" of turn 1 must be an object"},
      {"{}", "\"dataset\" in \"task\" of turn 1 is missing"},
      {R"({"dataset":"x","metric":"bleu"})", "\"metric\" in \"task\" of turn 1 must be one of f1, rouge_l, accuracy"},
      {R"({"dataset":"x","metric":"f1","position":3})", "\"position\" in \"task\" of turn 1 must be a text"},
      {R"({"dataset":"x","metric":"f1","position":"end","dependency":"never"})", "one of same, earlier, cross"},
      {R"({"dataset":"x","metric":"f1","position":"end","dependency":"same"})", "\"max_answer_tokens\" in"},
      {R"({"dataset":"x","metric":"f1","position":"end","dependency":"same","max_answer_tokens":0})", "at least 1"},
      {R"({"dataset":"x","metric":"f1","position":"end","dependency":"same","max_answer_tokens":1.5})", "at least 1"},
      {R"({"dataset":"x","metric":"f1","position":"end","dependency":"same","max_answer_tokens":18446744073709551615})",
       "at least 1"},
      {"{" + good + R"(,"cut_tokens":-1})", "\"cut_tokens\" in \"task\" of turn 1 must be a whole number"},
      {"{" + good + R"(,"text_turns":[0]})", "ascending turn numbers"},
      {"{" + good + R"(,"text_turns":[1,1]})", "ascending turn numbers"},
      {"{" + good + R"(,"text_turns":"1"})", "ascending turn numbers"},
      {"{" + good + R"(,"text_turns":[2]})", "\"text_turns\" of turn 1 names turn 2"},
      {"{" + good + R"(,"first_line_only":1})", "true or false"},
      {"{" + good + R"(,"all_classes":[1]})", "\"all_classes\" in \"task\" of turn 1 must be a list of texts"},
      {"{" + good + R"(,"source_ids":"a"})", "\"source_ids\" in \"task\" of turn 1 must be a list of texts"},
      {"{" + good + R"(,"sample":1})", "unknown field \"sample\" in \"task\" of turn 1"},
  };
  for (const auto& c : cases) {
    const auto read = Read(R"({"turns":[{"user":"q","task":)" + c.task + "}]}");
    EXPECT_EQ(read.status().code(), StatusCode::kCorruptData) << c.task;
    EXPECT_THAT(read.status().message(), HasSubstr(c.message)) << c.task;
    EXPECT_THAT(read.status().message(), HasSubstr("d.jsonl, line 1")) << c.task;
  }
}

TEST(GoodDialoguesTest, BrokenLinesAreCountedAndTheRestIsRead) {
  std::istringstream in(
      "{\"id\":\"a\",\"turns\":[{\"user\":\"q\"}]}\n{\n\n"
      "{\"id\":\"a\",\"turns\":[{\"user\":\"again\"}]}\n{\"turns\":[{\"user\":\"r\"}]}\n");
  const auto readable = ReadGoodDialogues(in, "d.jsonl");
  ASSERT_TRUE(readable.ok()) << readable.status().message();
  ASSERT_EQ(readable->dialogues.size(), 2u);
  EXPECT_EQ(readable->dialogues[0].turns[0].user, "q");
  EXPECT_EQ(readable->dialogues[1].id, "line-5");
  EXPECT_EQ(readable->left_out, 2);
  ASSERT_EQ(readable->messages.size(), 2u);
  EXPECT_THAT(readable->messages[0], HasSubstr("d.jsonl, line 2: not valid JSON"));
  EXPECT_THAT(readable->messages[1], HasSubstr("d.jsonl, line 4: the id \"a\" was given before"));
}

TEST(GoodDialoguesTest, AFileWithoutADialogueIsAnError) {
  std::istringstream broken("{\n[]\n");
  EXPECT_THAT(ReadGoodDialogues(broken, "d.jsonl").status().message(),
              HasSubstr("no line is a dialogue; the first: d.jsonl, line 1: not valid JSON"));
  std::istringstream empty("\n");
  EXPECT_EQ(ReadGoodDialogues(empty, "d.jsonl").status().message(), "d.jsonl: no dialogue in it");
  EXPECT_EQ(ReadGoodDialogueFile("/nonexistent").status().code(), StatusCode::kNotFound);
  std::istringstream many(std::string(50, '{') + "\n" + [] {
    std::string lines;
    for (int i = 0; i < 30; ++i) lines += "{\n";
    return lines;
  }() + "{\"turns\":[{\"user\":\"q\"}]}");
  const auto readable = ReadGoodDialogues(many, "d.jsonl");
  ASSERT_TRUE(readable.ok());
  EXPECT_EQ(readable->left_out, 31);
  EXPECT_EQ(readable->messages.size(), 20u);
}

}  // namespace
}  // namespace loopserve::eval
