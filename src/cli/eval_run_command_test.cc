// `loopserve eval run` and `eval export` from the command line to their files, on a tiny model and dialogues made here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "eval/metrics.h"
#include "eval/result_store.h"
#include "eval/sqlite_db.h"
#include "eval/test_results.h"
#include "src/base/temp_dir.h"
#include "src/cli/interrupt.h"
#include "src/cli/json_output.h"
#include "src/cli/test_program.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr char kSparse[] = "paper:alpha=0.7,rows=16,budget=64";

std::string Story(const std::string& name, int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += name + " walks over hill " + std::to_string(i) + " to the lake. ";
  return text;
}

class EvalRunCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteModel("m.gguf", 1);
    WriteDialogues("d.jsonl", 3);
  }

  void WriteModel(const std::string& name, uint64_t seed) const {
    TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
    options.seed = seed;
    options.context_tokens = 4096;
    options.chat_template =
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}";
    ASSERT_TRUE(WriteTinyGguf(options, Path(name)).ok());
  }

  void WriteDialogues(const std::string& name, int n) const {
    std::ofstream file(Path(name));
    for (int i = 0; i < n; ++i) {
      const std::string task = std::string(R"("task":{"dataset":"qasper","metric":"f1","position":")") +
                               (i % 2 == 0 ? "end" : "begin") +
                               R"(","dependency":"same","max_answer_tokens":12,"text_turns":[1]})";
      const std::string who = "Person " + std::to_string(i);
      file << R"({"id":"qasper-same-)" << i << R"(","turns":[{"user":")" << Story(who, 12)
           << R"(Who walks?","reference":["a )" << who << R"(","somebody"],)" << task << R"(},{"user":"Where to?",)"
           << R"("reference":["the lake"],)" << task << "}]}\n";
    }
  }

  std::string Path(const std::string& name) const { return (dir_.path() / name).string(); }

  std::string Slurp(const std::string& name) const {
    std::ifstream file(Path(name));
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  ProgramOutcome Run(const std::string& out, const std::vector<std::string>& more = {},
                     const std::string& dialogues = "d.jsonl") const {
    std::vector<std::string> args = {"eval",      "run", "-m",         Path("m.gguf"), "--dialogues", Path(dialogues),
                                     "--threads", "1",   "--policies", policies_,      "--out",       Path(out)};
    args.insert(args.end(), more.begin(), more.end());
    return RunProgram(args);
  }

  std::vector<eval::PlayedDialogue> Results(const std::string& out) const {
    auto store = eval::ResultStore::OpenResults(Path(out));
    EXPECT_TRUE(store.ok()) << store.status().message();
    return store.ok() ? *store->All() : std::vector<eval::PlayedDialogue>();
  }

  TempDir dir_;
  std::string policies_ = std::string("dense,") + kSparse;
};

TEST_F(EvalRunCommandTest, StoresScoresAndFiguresOfEveryTurn) {
  const ProgramOutcome run = Run("r");
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.err, IsEmpty());
  EXPECT_THAT(run.out, HasSubstr("mean score x 100"));
  EXPECT_THAT(run.out, HasSubstr("6 of 6 done"));
  const std::vector<eval::PlayedDialogue> all = Results("r");
  ASSERT_EQ(all.size(), 6u);
  EXPECT_EQ(all[0].policy, "dense");
  EXPECT_EQ(all[1].policy, kSparse);
  for (const eval::PlayedDialogue& played : all) {
    ASSERT_EQ(played.turns.size(), 2u);
    EXPECT_EQ(played.threads, 1);
    for (const eval::PlayedTurn& turn : played.turns) {
      EXPECT_EQ(turn.score, eval::Score(eval::Metric::kTokenF1, turn.answer, turn.references, {}, false));
      EXPECT_LE(turn.output_tokens, 12);
      EXPECT_GT(turn.output_tokens, 0);
      EXPECT_EQ(turn.prompt_tokens, turn.cached_tokens + turn.new_tokens);
      EXPECT_TRUE(turn.ttft_ms && turn.prefill_density && turn.kv_bytes && turn.prefill_attention_ms);
      EXPECT_FALSE(turn.kl || turn.top1_agreement || turn.answer_nll || turn.reference_kl || turn.reference_nll);
    }
    EXPECT_EQ(*played.turns[0].prefill_density < 1, played.policy != "dense");
    EXPECT_GT(played.turns[1].cached_tokens, played.turns[0].prompt_tokens) << "the answer stays in the history";
  }
  EXPECT_THAT(all[0].turns[0].references, ElementsAre("a Person 0", "somebody"));
  EXPECT_EQ(all[2].turns[0].position, "begin");
}

TEST_F(EvalRunCommandTest, GoesOnWhereAnEarlierStartEnded) {
  ASSERT_EQ(Run("whole").exit_code, 0);
  ASSERT_EQ(Run("r", {"--samples", "1"}).exit_code, 0);
  EXPECT_EQ(Results("r").size(), 4u);
  const ProgramOutcome rest = Run("r");
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_THAT(rest.out, HasSubstr("6 of 6 done, 4 of them before"));
  EXPECT_EQ(eval::Dump(Results("r"), false), eval::Dump(Results("whole"), false));
  EXPECT_THAT(Run("r").out, HasSubstr("6 of 6 done, 6 of them before"));
  policies_ = "minference,dense";
  EXPECT_THAT(Run("r").out, HasSubstr("6 of 6 done, 3 of them before")) << "more policies may join";
  EXPECT_EQ(Results("r").size(), 9u);
}

TEST_F(EvalRunCommandTest, FidelityOfDenseToItselfIsExact) {
  const ProgramOutcome run = Run("r", {"--fidelity"});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  for (const eval::PlayedDialogue& played : Results("r")) {
    for (const eval::PlayedTurn& turn : played.turns) {
      ASSERT_TRUE(turn.kl && turn.top1_agreement && turn.reference_kl && turn.reference_top1_agreement);
      ASSERT_TRUE(turn.reference_nll);
      if (played.policy == "dense") {
        EXPECT_EQ(turn.kl, 0);
        EXPECT_EQ(turn.top1_agreement, 1);
      } else {
        EXPECT_GT(*turn.kl, 0);
      }
      EXPECT_GT(*turn.reference_nll, 0);
    }
  }
  // Another start, without the dense dialogue in memory, measures the same.
  ASSERT_EQ(Run("again", {"--fidelity", "--samples", "1"}).exit_code, 0);
  ASSERT_EQ(Run("again", {"--fidelity"}).exit_code, 0);
  EXPECT_EQ(eval::Dump(Results("again"), false), eval::Dump(Results("r"), false));
}

// Policies whose prefill computes the same read the first turn once: what they answer is what each alone would have.
TEST_F(EvalRunCommandTest, ASharedPrefillChangesNoAnswerAndIsSaid) {
  const std::vector<std::string> specs = {kSparse, "paper:alpha=0.7,rows=16,budget=32,queries=5",
                                          "paper:alpha=0.7,rows=16,budget=0"};
  for (const std::vector<std::string>& more : {std::vector<std::string>(), {"--fidelity"}}) {
    const std::string suffix = more.empty() ? "" : "_fidelity";
    policies_ = "dense";
    for (const std::string& spec : specs) policies_ += "," + spec;
    ASSERT_EQ(Run("shared" + suffix, more).exit_code, 0);
    policies_ = "dense";
    ASSERT_EQ(Run("alone" + suffix, more).exit_code, 0);
    for (const std::string& spec : specs) {
      policies_ = spec;
      ASSERT_EQ(Run("alone" + suffix, more).exit_code, 0);
    }
    std::vector<eval::PlayedDialogue> shared = Results("shared" + suffix), alone = Results("alone" + suffix);
    for (auto* results : {&shared, &alone}) {
      std::ranges::sort(*results, {}, [](const auto& one) { return one.dialogue + one.policy; });
    }
    EXPECT_EQ(eval::Dump(shared, false), eval::Dump(alone, false));
    double linear_ms = 0;
    for (size_t i = 0; i < shared.size(); ++i) {
      const bool shares = shared[i].policy != "dense";
      const eval::PlayedTurn& first = shared[i].turns[0];
      EXPECT_EQ(first.prefill_shared, shares ? 1 : 0);
      EXPECT_EQ(shared[i].turns[1].prefill_shared, 0);
      EXPECT_EQ(alone[i].turns[0].prefill_shared, 0);
      EXPECT_GE(*first.ttft_ms, *first.prefill_linear_ms + *first.prefill_attention_ms + *first.prefill_selection_ms);
      if (!shares) {
        linear_ms = 0;
      } else if (linear_ms == 0) {
        linear_ms = *first.prefill_linear_ms;
      } else {
        EXPECT_EQ(*first.prefill_linear_ms, linear_ms) << "measured once";
      }
    }
  }
}

TEST_F(EvalRunCommandTest, AnswersAreCutAtTheAskedLength) {
  ASSERT_EQ(Run("r", {"--max-answer-tokens", "3"}).exit_code, 0);
  for (const eval::PlayedDialogue& played : Results("r")) {
    for (const eval::PlayedTurn& turn : played.turns) EXPECT_LE(turn.output_tokens, 3);
  }
}

TEST_F(EvalRunCommandTest, OtherInputsAreRefused) {
  ASSERT_EQ(Run("r", {"--samples", "1"}).exit_code, 0);
  std::ofstream(Path("other.jsonl")) << R"({"id":"qasper-same-1","turns":[{"user":"Another text."}]})";
  const ProgramOutcome dialogues = Run("r", {}, "other.jsonl");
  EXPECT_EQ(dialogues.exit_code, 2);
  EXPECT_THAT(dialogues.err, HasSubstr("holds the results of another dialogue qasper-same-1: it was "));
  EXPECT_THAT(Run("r", {"--fidelity"}).err, HasSubstr("its fidelity was no and is now yes"));
  EXPECT_THAT(Run("r", {"--kv-type", "q8_0"}).err, HasSubstr("its kv_type was f16 and is now q8_0"));
  WriteModel("m.gguf", 2);
  EXPECT_THAT(Run("r").err, HasSubstr("its model_sha256 was"));
  EXPECT_EQ(Results("r").size(), 4u) << "what was there is untouched";
}

TEST_F(EvalRunCommandTest, AFailedDialogueIsSaidAndTheRestGoesOn) {
  {
    std::ofstream file(Path("d.jsonl"), std::ios::app);
    file << R"({"id":"long","turns":[{"user":")" << Story("Everyone", 400) << "\"}]}\n";
  }
  // Two of the three would share the reading that fails.
  policies_ += ",paper:alpha=0.7,rows=16,budget=0";
  const ProgramOutcome run = Run("r");
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.out, HasSubstr("9 of 12 done, 3 failed"));
  EXPECT_THAT(run.err, HasSubstr("3 of 12 failed, the first: long, dense: "));
  EXPECT_EQ(Results("r").size(), 12u);
  EXPECT_THAT(Results("r").back().error, HasSubstr("the context holds 4096"));
}

TEST_F(EvalRunCommandTest, FoldersAndFilesThatCannotBeUsedAreNamed) {
  std::ofstream(Path("file")) << "text";
  const ProgramOutcome unwritable = Run("file/sub");
  EXPECT_EQ(unwritable.exit_code, 1);
  EXPECT_THAT(unwritable.err, HasSubstr("cannot create the folder"));
  std::filesystem::create_directories(Path("r"));
  std::ofstream(Path("r/results.sqlite")) << Story("Nobody", 100);
  const ProgramOutcome damaged = Run("r");
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_THAT(damaged.err, HasSubstr("results.sqlite is damaged"));
  EXPECT_EQ(RunProgram({"eval", "export", Path("r")}).exit_code, 1);
  EXPECT_EQ(RunProgram({"eval", "export", Path("none")}).exit_code, 1);
  EXPECT_EQ(Run("s", {"--max-answer-tokens", "-1"}).exit_code, 2);
  EXPECT_THAT(Run("s", {}, "none.jsonl").err, HasSubstr("none.jsonl"));
  policies_ = "frob";
  EXPECT_EQ(Run("s").exit_code, 2);
  policies_ = "";
  EXPECT_EQ(Run("s").exit_code, 2);
  EXPECT_FALSE(std::filesystem::exists(Path("s"))) << "nothing is begun that cannot be done";
}

TEST_F(EvalRunCommandTest, ReportsWhatWasStored) {
  policies_ = "dense,loopserve";
  ASSERT_EQ(Run("r").exit_code, 0);
  const ProgramOutcome outcome = RunProgram({"eval", "report", Path("r"), "--out", Path("reports/new")});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  std::string paths;
  for (const char* name : {"report.html", "report.md", "score-against-time.svg", "score-against-attentions-time.svg",
                           "score-against-kv-read.svg"}) {
    paths += Path(std::string("reports/new/") + name) + "\n";
  }
  EXPECT_EQ(outcome.out, paths);
  EXPECT_THAT(Slurp("reports/new/report.md"), HasSubstr("![Score against KV read](score-against-kv-read.svg)"));
  EXPECT_THAT(Slurp("reports/new/score-against-kv-read.svg"), StartsWith("<svg "));
  const std::string markdown = Slurp("reports/new/report.md");
  EXPECT_THAT(markdown, HasSubstr("Is loopserve at least as good?"));
  EXPECT_THAT(markdown, HasSubstr("Scores, question at the begin"));
  EXPECT_THAT(markdown, HasSubstr("Speed and memory"));
  EXPECT_THAT(Slurp("reports/new/report.html"), HasSubstr("<svg"));
  EXPECT_EQ(RunProgram({"eval", "report", Path("none")}).exit_code, 1);
}

TEST_F(EvalRunCommandTest, ExportsTheSameJsonAsTheRun) {
  ASSERT_EQ(Run("r", {"--samples", "1"}).exit_code, 0);
  const std::string written = Slurp("r/results.json");
  const ProgramOutcome exported = RunProgram({"eval", "export", Path("r"), "--json", "-"});
  EXPECT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_EQ(exported.out, written);
  const Json json = Json::parse(written);
  EXPECT_EQ(json["dialogues"].size(), 4u);
  EXPECT_EQ(json["run"]["fidelity"], "no");
  EXPECT_TRUE(json["run"].contains("model"));
  EXPECT_THAT(RunProgram({"eval", "export", Path("r")}).out, HasSubstr("mean score x 100"));
}

// What is kept elsewhere is a start for a run there.
TEST_F(EvalRunCommandTest, GoesOnFromWhatWasExportedAsText) {
  ASSERT_EQ(Run("whole").exit_code, 0);
  ASSERT_EQ(Run("r", {"--samples", "1"}).exit_code, 0);
  ASSERT_EQ(RunProgram({"eval", "export", Path("r"), "--text", Path("kept.jsonl")}).exit_code, 0);
  const ProgramOutcome printed = RunProgram({"eval", "export", Path("r"), "--text", "-"});
  EXPECT_EQ(printed.out, Slurp("kept.jsonl"));
  const ProgramOutcome read = RunProgram({"eval", "import", Path("kept.jsonl"), "--out", Path("there")});
  ASSERT_EQ(read.exit_code, 0) << read.err;
  EXPECT_THAT(read.out, HasSubstr("4 joined; 4 are stored"));
  const ProgramOutcome rest = Run("there");
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_THAT(rest.out, HasSubstr("6 of 6 done, 4 of them before"));
  std::vector<eval::PlayedDialogue> there = Results("there"), whole = Results("whole");
  for (auto* results : {&there, &whole}) {
    for (eval::PlayedDialogue& played : *results) {
      for (eval::PlayedTurn& turn : played.turns) {
        turn.answer.clear();
        turn.references.clear();
      }
    }
  }
  EXPECT_EQ(eval::Dump(there, false), eval::Dump(whole, false));
  EXPECT_THAT(RunProgram({"eval", "import", Path("kept.jsonl"), "--out", Path("there")}).out, HasSubstr("0 joined"));
  EXPECT_EQ(RunProgram({"eval", "report", Path("there")}).exit_code, 0);
  // Neither another run's folder nor a damaged file changes anything.
  ASSERT_EQ(Run("other", {"--max-answer-tokens", "3"}).exit_code, 0);
  const ProgramOutcome other = RunProgram({"eval", "import", Path("kept.jsonl"), "--out", Path("other")});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("max_answer_tokens was 3 and is now 0"));
  std::ofstream(Path("bad.jsonl")) << Slurp("kept.jsonl").substr(0, Slurp("kept.jsonl").size() - 9);
  const ProgramOutcome bad = RunProgram({"eval", "import", Path("bad.jsonl"), "--out", Path("bad")});
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_THAT(bad.err, HasSubstr("bad.jsonl, line 5: not valid JSON"));
  EXPECT_FALSE(std::filesystem::exists(Path("bad")));
}

TEST_F(EvalRunCommandTest, ABrokenLineIsSaidAndTheRestIsPlayed) {
  WriteDialogues("good.jsonl", 2);
  std::ifstream good(Path("good.jsonl"));
  std::string first, second;
  ASSERT_TRUE(std::getline(good, first) && std::getline(good, second));
  std::ofstream(Path("broken.jsonl")) << first << "\n{\"turns\":[{\"\\u001b[2J\":1}]}\n" << second << "\n";
  const ProgramOutcome run = Run("r", {}, "broken.jsonl");
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.out, HasSubstr("4 of 4 done"));
  EXPECT_THAT(run.err, HasSubstr("broken.jsonl, line 2: "));
  EXPECT_THAT(run.err, HasSubstr("1 broken line of "));
  EXPECT_EQ(run.err.find('\x1b'), std::string::npos);
  // Mended, it goes on with what was left out.
  const ProgramOutcome mended = Run("r");
  EXPECT_EQ(mended.exit_code, 0) << mended.err;
  EXPECT_THAT(mended.out, HasSubstr("6 of 6 done, 4 of them before"));
}

TEST_F(EvalRunCommandTest, CtrlCKeepsWhatIsFinishedAndTheNextStartGoesOn) {
  WriteDialogues("d.jsonl", 60);
  std::atomic<bool> over{false};
  std::thread user([&] {
    while (!over) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      auto store = eval::ResultStore::OpenResults(Path("r"));
      if (!store.ok()) continue;
      const auto finished = store->Finished();
      if (!finished.ok() || finished->size() < 3) continue;
      kill(getpid(), SIGINT);
      return;
    }
  });
  const ProgramOutcome stopped = Run("r");
  over = true;
  user.join();
  ClearInterrupt();
  EXPECT_EQ(stopped.exit_code, 130);
  EXPECT_THAT(stopped.err, HasSubstr("interrupted; what was finished is stored, and the same command goes on"));
  const size_t before = Results("r").size();
  EXPECT_GE(before, 3u);
  ASSERT_LT(before, 120u);
  EXPECT_THAT(stopped.out, HasSubstr(std::to_string(before) + " of 120 done"));
  std::ifstream written(Path("r/results.json"));
  EXPECT_EQ(Json::parse(written)["dialogues"].size(), before);
  const ProgramOutcome rest = Run("r");
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_THAT(rest.out, HasSubstr("120 of 120 done, " + std::to_string(before) + " of them before"));
  ASSERT_EQ(Run("whole").exit_code, 0);
  EXPECT_EQ(eval::Dump(Results("r"), false), eval::Dump(Results("whole"), false));
}

TEST_F(EvalRunCommandTest, AFullDiskEndsTheRunAndLosesNothing) {
  ASSERT_EQ(Run("r", {"--samples", "1"}).exit_code, 0);
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = std::filesystem::file_size(Path("r/results.sqlite"));
  WriteDialogues("d.jsonl", 40);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const ProgramOutcome full = Run("r");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_THAT(full.err, HasSubstr("results.sqlite: disk I/O error"));
  const ProgramOutcome rest = Run("r");
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  ASSERT_EQ(Run("whole").exit_code, 0);
  EXPECT_EQ(Results("r").size(), 80u);
  EXPECT_EQ(eval::Dump(Results("r"), false), eval::Dump(Results("whole"), false));
}

TEST_F(EvalRunCommandTest, APolicyOfOtherSettingsIsAnotherPolicy) {
  ASSERT_EQ(Run("r", {"--samples", "1"}).exit_code, 0);
  const auto change = [&](const char* sql) {
    auto database = eval::SqlDatabase::Open(Path("r/results.sqlite"), eval::SqlDatabase::Mode::kCreate);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(database->Execute(sql).ok());
  };
  change("UPDATE definitions SET value = 'decode.budget=7' WHERE kind = 'policy' AND name LIKE 'paper%'");
  const ProgramOutcome run = Run("r");
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_THAT(run.err, HasSubstr("it was decode.budget=7 and is now prefill.method=1 "));
}

}  // namespace
}  // namespace loopserve
