#include "src/cli/dialogue_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace loopserve {
namespace {

using testing::HasSubstr;

Result<std::vector<WrittenDialogue>> Read(const std::string& text) {
  std::istringstream in(text);
  return ReadDialogues(in, "d.jsonl");
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
      {std::string(1000000, '['), "not valid JSON"},
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

}  // namespace
}  // namespace loopserve
