// `loopserve eval build` from the command line to its file, on a tiny model's vocabulary and texts made here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "eval/dialogue_file.h"
#include "loopserve/vocabulary.h"
#include "src/cli/test_eval_data.h"
#include "src/cli/test_program.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class EvalBuildCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::path(testing::TempDir()) / ("eval_build_command_" + std::to_string(getpid()));
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_ / "data");
    TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
    options.context_tokens = 16384;
    options.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
    ASSERT_TRUE(WriteTinyGguf(options, Path("m.gguf")).ok());
    WriteItems("qasper", "");
    WriteItems("hotpotqa", "");
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string Path(const std::string& name) const { return (dir_ / name).string(); }

  void WriteItems(const std::string& dataset, const std::string& first_lines) const {
    WriteTestItems(dir_, dataset, first_lines);
  }

  ProgramOutcome Build(const std::vector<std::string>& options) const {
    std::vector<std::string> args = {"eval", "build", "-m", Path("m.gguf"), "--data", dir_.string()};
    args.insert(args.end(), options.begin(), options.end());
    return RunProgram(args);
  }
  static std::string Content(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  std::filesystem::path dir_;
};

TEST_F(EvalBuildCommandTest, WritesDialoguesThatOthersRead) {
  const ProgramOutcome built = Build({"--datasets", "qasper,hotpotqa", "--samples", "2", "--out", Path("d.jsonl")});
  EXPECT_EQ(built.exit_code, 0) << built.err;
  EXPECT_THAT(built.err, IsEmpty());
  EXPECT_THAT(built.out, HasSubstr("qasper: 18 dialogues of 3 items"));
  EXPECT_THAT(built.out, HasSubstr("hotpotqa: 18 dialogues of 3 items"));
  const auto dialogues = eval::ReadDialogueFile(Path("d.jsonl"));
  ASSERT_TRUE(dialogues.ok()) << dialogues.status().message();
  ASSERT_EQ(dialogues->size(), 36u);
  std::set<std::string> kinds;
  for (const eval::WrittenDialogue& dialogue : *dialogues) {
    ASSERT_EQ(dialogue.turns.size(), 3u);
    const eval::TurnTask& task = *dialogue.turns[2].task;
    kinds.insert(task.dataset + std::string(NameOf(task.position)) + std::string(NameOf(task.dependency)));
  }
  EXPECT_EQ(kinds.size(), 2u * 3u * 3u);
  // `run` and `score` play them: a task is no obstacle.
  const ProgramOutcome one = Build({"--datasets", "qasper", "--positions", "end", "--dependencies", "same", "--tokens",
                                    "2600", "--out", Path("one.jsonl")});
  ASSERT_EQ(one.exit_code, 0) << one.err;
  const ProgramOutcome run = RunProgram({"run", "-m", Path("m.gguf"), "--dialogue", Path("one.jsonl"), "--threads", "2",
                                         "--max-tokens", "2", "--quiet", "--json", "-"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("qasper-same-1-end"));
  const ProgramOutcome score = RunProgram({"score", "-m", Path("m.gguf"), "--dialogues", Path("one.jsonl"), "--threads",
                                           "2", "--policy", "dense", "--json", "-"});
  EXPECT_EQ(score.exit_code, 0) << score.err;
  EXPECT_THAT(score.out, HasSubstr("\"turn\": 3"));
}

TEST_F(EvalBuildCommandTest, DialoguesFitAContextOfTheAskedLength) {
  const int64_t tokens = 3000;
  const ProgramOutcome built =
      Build({"--datasets", "hotpotqa,qasper", "--tokens", std::to_string(tokens), "--out", Path("d.jsonl")});
  ASSERT_EQ(built.exit_code, 0) << built.err;
  const auto vocabulary = Vocabulary::Open(Path("m.gguf"));
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status().message();
  const auto dialogues = eval::ReadDialogueFile(Path("d.jsonl"));
  ASSERT_TRUE(dialogues.ok()) << dialogues.status().message();
  for (const eval::WrittenDialogue& dialogue : *dialogues) {
    std::vector<ChatMessage> messages;
    int64_t answers = 0;
    for (const eval::DialogueTurn& turn : dialogue.turns) {
      messages.push_back({"user", turn.user});
      messages.push_back({"assistant", ""});
      answers += turn.task->max_answer_tokens;
    }
    const auto rendered = (*vocabulary)->RenderChat(messages);
    ASSERT_TRUE(rendered.ok()) << rendered.status().message();
    EXPECT_LE(static_cast<int64_t>(rendered->size()) + answers, tokens) << dialogue.id;
    EXPECT_GE(static_cast<int64_t>(rendered->size()) + answers, tokens / 3) << dialogue.id << ": texts are there";
  }
}

TEST_F(EvalBuildCommandTest, StdoutHoldsTheSameLinesAndNothingElse) {
  const std::vector<std::string> options = {"--datasets", "hotpotqa", "--mix", "--samples", "2", "--seed", "9"};
  std::vector<std::string> to_file = options;
  to_file.insert(to_file.end(), {"--out", Path("d.jsonl")});
  std::vector<std::string> to_stdout = options;
  to_stdout.insert(to_stdout.end(), {"--out", "-"});
  ASSERT_EQ(Build(to_file).exit_code, 0);
  const ProgramOutcome printed = Build(to_stdout);
  EXPECT_EQ(printed.exit_code, 0);
  EXPECT_EQ(printed.out, Content(Path("d.jsonl")));
  EXPECT_THAT(printed.err, IsEmpty());
  std::istringstream in(printed.out);
  EXPECT_EQ(eval::ReadDialogues(in, "stdout")->size(), 6u);
}

TEST_F(EvalBuildCommandTest, AMissingDatasetIsNamedAndTheRestIsWritten) {
  const ProgramOutcome built = Build({"--datasets", "qasper,trec", "--out", Path("d.jsonl")});
  EXPECT_EQ(built.exit_code, 1);
  EXPECT_THAT(built.err, HasSubstr("1 of 2 datasets gave no dialogues (trec); the others were written"));
  EXPECT_THAT(built.err, HasSubstr("trec.jsonl"));
  EXPECT_EQ(eval::ReadDialogueFile(Path("d.jsonl"))->size(), 9u);
  for (const char* datasets : {"trec", "trec,samsum"}) {
    const ProgramOutcome none = Build({"--datasets", datasets, "--out", Path("none.jsonl")});
    EXPECT_EQ(none.exit_code, 1);
    EXPECT_THAT(none.err, HasSubstr("trec.jsonl"));
    EXPECT_FALSE(std::filesystem::exists(Path("none.jsonl")));
  }
}

TEST_F(EvalBuildCommandTest, BrokenLinesAreSaidAndCounted) {
  WriteItems("qasper", R"({"input":"q","context":"c","answers":["a"],"language":"zh"})"
                       "\n{\"input\":\n\xff\xfe\n[]\n"
                       R"({"input":"q","answers":["a"]})"
                       "\n"
                       R"({"input":"q","context":" ","answers":["a"]})"
                       "\n"
                       R"({"input":"q","context":"c","answers":[]})");
  const ProgramOutcome built = Build({"--datasets", "qasper", "--out", Path("d.jsonl")});
  EXPECT_EQ(built.exit_code, 0);
  const std::pair<int, const char*> broken[] = {{1, "the language is \"zh\", not \"en\""},
                                                {2, "not valid JSON"},
                                                {3, "not valid UTF-8"},
                                                {4, "it must be an object"},
                                                {5, "the field \"context\" is missing"},
                                                {6, "the field \"context\" is empty"},
                                                {7, "answers"}};
  for (const auto& [line, why] : broken) {
    EXPECT_THAT(built.err, testing::ContainsRegex("qasper.jsonl, line " + std::to_string(line) + ": .*" + why));
  }
  EXPECT_THAT(built.out, HasSubstr("7 lines left out"));
  EXPECT_EQ(eval::ReadDialogueFile(Path("d.jsonl"))->size(), 9u) << "the rest is built";
}

TEST_F(EvalBuildCommandTest, WrongUsageIsNamed) {
  const struct {
    std::vector<std::string> options;
    const char* message;
    int exit_code = 2;
  } cases[] = {
      {{"--datasets", "triviaqa"}, "--datasets: there is no \"triviaqa\"; known are narrativeqa"},
      {{"--positions", "top"}, "--positions: there is no \"top\"; known are begin, middle, end and all"},
      {{"--dependencies", "same,none"}, "--dependencies: there is no \"none\""},
      {{"--samples", "0"}, "--samples"},
      {{"--tokens", "-5"}, "--tokens"},
      {{"--tokens", "20000"}, "beyond the model's context of 16384 tokens"},
      {{"--datasets", "qasper", "--tokens", "300"}, "300 tokens are too few"},
      {{"--data", "/nonexistent"}, "/nonexistent is no folder", 1},
      {{"-m", "/nonexistent.gguf"}, "no such model file", 1},
      {{"--out", "/nonexistent/d.jsonl"}, "/nonexistent", 1},
  };
  for (const auto& c : cases) {
    std::vector<std::string> args = {"eval", "build"};
    const auto add = [&](const std::string& name, const std::string& value) {
      if (std::find(c.options.begin(), c.options.end(), name) == c.options.end())
        args.insert(args.end(), {name, value});
    };
    add("-m", Path("m.gguf"));
    add("--data", dir_.string());
    add("--out", Path("d.jsonl"));
    args.insert(args.end(), c.options.begin(), c.options.end());
    const ProgramOutcome built = RunProgram(args);
    EXPECT_EQ(built.exit_code, c.exit_code) << c.message << "\n" << built.err;
    EXPECT_THAT(built.err, HasSubstr(c.message));
    EXPECT_FALSE(std::filesystem::exists(Path("d.jsonl"))) << c.message;
  }
  EXPECT_EQ(RunProgram({"eval"}).exit_code, 2);
}

}  // namespace
}  // namespace loopserve
