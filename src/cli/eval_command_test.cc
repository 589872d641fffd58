// `loopserve eval` from data to report in one command, and `eval pull`: on a tiny model, texts made here and a server
// on this machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "eval/result_store.h"
#include "eval/test_results.h"
#include "src/base/temp_dir.h"
#include "src/cli/interrupt.h"
#include "src/cli/test_eval_data.h"
#include "src/cli/test_program.h"
#include "src/fetch/test_server.h"
#include "src/fetch/test_zip.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

class EvalCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
    options.context_tokens = 4096;
    options.chat_template =
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}";
    ASSERT_TRUE(WriteTinyGguf(options, Path("m.gguf")).ok());
    WriteTestItems(dir_.path(), "qasper");
    WriteTestItems(dir_.path(), "hotpotqa");
  }

  std::string Path(const std::string& name) const { return (dir_.path() / name).string(); }

  /// Six dialogues, twelve plays.
  ProgramOutcome Eval(const std::string& out, const std::vector<std::string>& more = {},
                      const std::string& datasets = "qasper,hotpotqa") const {
    std::vector<std::string> args = {"eval",
                                     "-m",
                                     Path("m.gguf"),
                                     "--data",
                                     Path(""),
                                     "--datasets",
                                     datasets,
                                     "--dependencies",
                                     "same",
                                     "--tokens",
                                     "2600",
                                     "--max-answer-tokens",
                                     "3",
                                     "--threads",
                                     "1",
                                     "--policies",
                                     "dense,paper:alpha=0.8,rows=16,budget=64",
                                     "--out",
                                     Path(out)};
    args.insert(args.end(), more.begin(), more.end());
    return RunProgram(args);
  }

  std::vector<eval::PlayedDialogue> Results(const std::string& out) const {
    auto store = eval::ResultStore::OpenResults(Path(out));
    EXPECT_TRUE(store.ok()) << store.status().message();
    return store.ok() ? *store->All() : std::vector<eval::PlayedDialogue>();
  }

  TempDir dir_;
};

TEST_F(EvalCommandTest, GoesFromDataToReportAndRepeatsNothing) {
  const ProgramOutcome first = Eval("r");
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("qasper: 3 dialogues of 3 items"));
  EXPECT_THAT(first.out, HasSubstr("12 of 12 done;"));
  EXPECT_THAT(first.out, HasSubstr("report.html"));
  for (const char* name : {"dialogues.jsonl", "results.sqlite", "results.json", "report.html", "report.md"}) {
    EXPECT_TRUE(std::filesystem::exists(Path("r/") + name)) << name;
  }
  EXPECT_THAT(ReadTestFile(Path("r/report.md")), HasSubstr("Score beside cost"));
  const std::string dialogues = ReadTestFile(Path("r/dialogues.jsonl"));
  const std::string results = eval::Dump(Results("r"), true);
  const ProgramOutcome again = Eval("r");
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("12 of 12 done, 12 of them before"));
  EXPECT_EQ(ReadTestFile(Path("r/dialogues.jsonl")), dialogues) << "the same by the same seed";
  EXPECT_EQ(eval::Dump(Results("r"), true), results) << "with the times of the first start";
  EXPECT_THAT(Eval("r", {"--samples", "2"}).out, HasSubstr("24 of 24 done, 12 of them before"));
  // What is refused leaves the dialogues as they are.
  const std::string two_each = ReadTestFile(Path("r/dialogues.jsonl"));
  const ProgramOutcome refused = Eval("r", {"--tokens", "300"});
  EXPECT_EQ(refused.exit_code, 2) << refused.err;
  EXPECT_EQ(ReadTestFile(Path("r/dialogues.jsonl")), two_each);
  EXPECT_FALSE(std::filesystem::exists(Path("r/dialogues.jsonl.new")));
  // A file of dialogues instead of data plays the same.
  const ProgramOutcome file = RunProgram({"eval", "-m", Path("m.gguf"), "--dialogues", Path("r/dialogues.jsonl"),
                                          "--samples", "1", "--max-answer-tokens", "3", "--threads", "1", "--policies",
                                          "dense,paper:alpha=0.8,rows=16,budget=64", "--out", Path("file")});
  EXPECT_EQ(file.exit_code, 0) << file.err;
  Eval("fresh");
  EXPECT_EQ(eval::Dump(Results("file"), false), eval::Dump(Results("fresh"), false));
}

TEST_F(EvalCommandTest, AMissingDatasetAndBrokenLinesAreSaidAndTheRestIsReported) {
  WriteTestItems(dir_.path(), "hotpotqa", "{\"input\":\n{\"input\":\"q\",\"context\":\"\",\"answers\":[\"a\"]}");
  const ProgramOutcome outcome = Eval("r", {}, "qasper,trec,hotpotqa");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("hotpotqa.jsonl, line 1: not valid JSON"));
  EXPECT_THAT(outcome.err, HasSubstr("hotpotqa.jsonl, line 2: "));
  EXPECT_THAT(outcome.err, HasSubstr("1 of 3 datasets gave no dialogues (trec); the others were written"));
  EXPECT_THAT(outcome.out, HasSubstr("12 of 12 done"));
  EXPECT_TRUE(std::filesystem::exists(Path("r/report.html")));
  const ProgramOutcome none = Eval("none", {}, "trec,samsum");
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_FALSE(std::filesystem::exists(Path("none/results.sqlite")));
}

TEST_F(EvalCommandTest, CtrlCLeavesAReportAndTheNextStartGoesOn) {
  std::atomic<bool> over{false};
  std::thread user([&] {
    while (!over) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      auto store = eval::ResultStore::OpenResults(Path("r"));
      if (!store.ok()) continue;
      const auto finished = store->Finished();
      if (!finished.ok() || finished->empty()) continue;
      kill(getpid(), SIGINT);
      return;
    }
  });
  const std::vector<std::string> many = {"--samples", "12"};
  const ProgramOutcome stopped = Eval("r", many);
  over = true;
  user.join();
  ClearInterrupt();
  EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("interrupted; what was finished is stored"));
  const size_t before = Results("r").size();
  ASSERT_LT(before, 144u);
  EXPECT_THAT(ReadTestFile(Path("r/report.md")), HasSubstr("Score beside cost"));
  const ProgramOutcome rest = Eval("r", many);
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_THAT(rest.out, HasSubstr("144 of 144 done, " + std::to_string(before) + " of them before"));
}

TEST_F(EvalCommandTest, AFullDiskIsSaidAtEveryStepAndLosesNothing) {
  ASSERT_EQ(Eval("whole").exit_code, 0);
  const auto database = std::filesystem::file_size(Path("whole/results.sqlite"));
  const auto dialogues = std::filesystem::file_size(Path("whole/dialogues.jsonl"));
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto limited = [&](uintmax_t bytes) {
    rlimit limit = old_limit;
    limit.rlim_cur = bytes;
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const ProgramOutcome outcome = Eval("r");
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_THAT(outcome.err, HasSubstr("loopserve: error: "));
    return outcome;
  };
  EXPECT_THAT(limited(dialogues / 2).err, HasSubstr("dialogues.jsonl"));
  EXPECT_FALSE(std::filesystem::exists(Path("r/dialogues.jsonl")));
  EXPECT_THAT(limited(std::max(dialogues, database / 2)).err, HasSubstr("results."));
  const ProgramOutcome rest = Eval("r");
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_EQ(eval::Dump(Results("r"), false), eval::Dump(Results("whole"), false));
}

TEST_F(EvalCommandTest, WrongUsageIsNamed) {
  const struct {
    std::vector<std::string> args;
    const char* says;
  } cases[] = {
      {{"eval"}, "--model is required"},
      {{"eval", "-m", Path("m.gguf"), "--data", Path("")}, "--out is required"},
      {{"eval", "-m", Path("m.gguf"), "--out", Path("x")}, "needs --data or --dialogues"},
      {{"eval", "-m", Path("m.gguf"), "--out", Path("x"), "--data", Path(""), "--dialogues", "d"}, "and not both"},
      {{"eval", "-m", Path("m.gguf"), "--out", Path("x"), "--dialogues", "d", "--seed", "1"}, "--seed: is for --data"},
      {{"eval", "report", Path("x"), "--policies", "dense"}, "--policies: is no option of eval report"},
      {{"eval", "--samples", "1", "report", Path("x")}, "--samples: is no option of eval report"},
      {{"eval", "-m", Path("m.gguf"), "--out", Path("x"), "--data", Path(""), "--policies", "frob"}, "unknown policy"},
      {{"eval", "-m", Path("m.gguf"), "--out", Path("x"), "--data", Path(""), "--datasets", "frob"}, "no \"frob\""},
  };
  for (const auto& c : cases) {
    const ProgramOutcome outcome = RunProgram(c.args);
    EXPECT_EQ(outcome.exit_code, 2) << c.says;
    EXPECT_THAT(outcome.err, HasSubstr(c.says));
  }
}

class EvalPullTest : public EvalCommandTest {
 protected:
  void SetUp() override {
    EvalCommandTest::SetUp();
    const char* before = getenv("LOOPSERVE_CACHE");
    if (before != nullptr) cache_before_ = before;
    setenv("LOOPSERVE_CACHE", Path("cache").c_str(), 1);
  }
  void TearDown() override {
    cache_before_.empty() ? unsetenv("LOOPSERVE_CACHE") : setenv("LOOPSERVE_CACHE", cache_before_.c_str(), 1);
  }
  std::string cache_before_;
};

TEST_F(EvalPullTest, WhatWasPulledIsTheDataOfARun) {
  TestMembers members;
  for (const char* name : {"narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "gov_report",
                           "qmsum", "multi_news", "trec", "samsum"}) {
    WriteTestItems(dir_.path(), name);
    members.emplace_back(std::string("data/") + name + ".jsonl",
                         ReadTestFile(Path(std::string("data/") + name + ".jsonl")));
  }
  members.emplace_back("data/lsht.jsonl", "{}");
  members.emplace_back("../../../outside.jsonl", "{}");
  WriteTestZip(Path("data.zip"), members);
  const std::string content = ReadTestFile(Path("data.zip"));
  TestServer server([&](const TestServer::Request& request) { return ServeFile(request, content, "\"v1\""); });
  const ProgramOutcome pulled = RunProgram({"eval", "pull", "--url", server.Url("/data.zip")});
  ASSERT_EQ(pulled.exit_code, 0) << pulled.err;
  EXPECT_EQ(pulled.out, Path("cache/longbench") + "\n");
  EXPECT_FALSE(std::filesystem::exists(Path("cache/longbench/data/lsht.jsonl")));
  const ProgramOutcome built =
      RunProgram({"eval", "build", "-m", Path("m.gguf"), "--data", Path("cache/longbench"), "--datasets",
                  "qasper,hotpotqa", "--tokens", "2600", "--out", Path("d.jsonl")});
  EXPECT_EQ(built.exit_code, 0) << built.err;
  EXPECT_EQ(RunProgram({"eval", "pull", "--url", server.Url("/data.zip"), "--sha256", "1"}).exit_code, 2);
  EXPECT_EQ(RunProgram({"eval", "pull", "--url", "ftp://x/data.zip"}).exit_code, 2);
}

TEST_F(EvalPullTest, AServerWithoutTheArchiveIsNamed) {
  TestServer server([](const auto&) { return RawAnswer(404, LengthLine(0)); });
  const ProgramOutcome pulled = RunProgram({"eval", "pull", "--url", server.Url("/data.zip")});
  EXPECT_EQ(pulled.exit_code, 1);
  EXPECT_THAT(pulled.err, HasSubstr("data.zip"));
}

}  // namespace
}  // namespace loopserve
