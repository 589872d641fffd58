#include "bench/speed_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <utility>

#include "bench/own_engine.h"
#include "src/base/temp_dir.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve::bench {
namespace {

/// Writes down who was called with what; its time to first token is the number of its calls.
class FakeEngine : public MeasuredEngine {
 public:
  FakeEngine(std::string name, std::vector<std::string>* log, bool fails)
      : name_(std::move(name)), log_(log), fails_(fails) {}
  Status Prepare(std::span<const Token> context) override {
    log_->push_back(name_ + " prepare " + std::to_string(context.size()));
    return Status::Ok();
  }
  Result<RunFigures> Run(std::span<const Token> prompt, int gen_tokens) override {
    log_->push_back(name_ + " run " + std::to_string(prompt.size()));
    if (fails_) return Status(StatusCode::kIoError, "it fell over");
    RunFigures figures;
    figures.ttft_ms = ++calls_;
    figures.output.assign(static_cast<size_t>(gen_tokens), 1);
    return figures;
  }

 private:
  std::string name_;
  std::vector<std::string>* log_;
  bool fails_;
  int calls_ = 0;
};

class SpeedTableTest : public testing::Test {
 protected:
  Contestant Fake(const std::string& engine, const std::string& policy, bool fails = false) {
    return {.spec = {.engine = engine, .policy = policy},
            .start = [=, this]() -> Result<std::unique_ptr<MeasuredEngine>> {
              return std::unique_ptr<MeasuredEngine>(std::make_unique<FakeEngine>(engine, &log_, fails));
            }};
  }

  static SpeedOptions Options() {
    SpeedOptions options;
    options.cases = {{.context_tokens = 10, .new_tokens = 5}};
    options.rounds = 3;
    options.settle = std::chrono::milliseconds(0);
    options.text.resize(200);
    std::iota(options.text.begin(), options.text.end(), 0);
    return options;
  }

  std::vector<std::string> log_;
};

TEST_F(SpeedTableTest, InterleavesTheEnginesAndTakesMedians) {
  const auto report = MeasureSpeed(Options(), {Fake("loopserve", "dense"), Fake("b", "x")});
  ASSERT_TRUE(report.ok());
  EXPECT_THAT(log_, testing::ElementsAre("loopserve prepare 10", "b prepare 10", "loopserve run 15", "b run 15",
                                         "b run 15", "loopserve run 15", "loopserve run 15", "b run 15"));
  ASSERT_EQ(report->rows.size(), 2u);
  EXPECT_EQ(report->rows[0].median.ttft_ms, 2);
  EXPECT_EQ(report->rows[0].ttft_min_ms, 1);
  EXPECT_EQ(report->rows[0].ttft_max_ms, 3);
  EXPECT_EQ(report->rows[1].same_output_tokens, 16);
}

TEST_F(SpeedTableTest, APeerThatFailsIsSkippedWithItsReason) {
  Contestant unreadable = Fake("openvino", "full");
  unreadable.start = [] { return Status(StatusCode::kUnsupported, "cannot read it"); };
  const auto report = MeasureSpeed(Options(), {Fake("loopserve", "dense"), Fake("b", "x", true), unreadable});
  ASSERT_TRUE(report.ok());
  ASSERT_EQ(report->rows.size(), 1u);
  ASSERT_EQ(report->skipped.size(), 2u);
  EXPECT_EQ(report->skipped[0].reason, "cannot read it");
  EXPECT_EQ(report->skipped[1].reason, "it fell over");
}

TEST_F(SpeedTableTest, OurOwnFailureAndAnInterruptEndIt) {
  EXPECT_EQ(MeasureSpeed(Options(), {Fake("loopserve", "dense", true)}).status().code(), StatusCode::kIoError);
  const std::atomic<bool> cancel = true;
  SpeedOptions options = Options();
  options.cancel = &cancel;
  EXPECT_EQ(MeasureSpeed(options, {Fake("loopserve", "dense")}).status().code(), StatusCode::kCancelled);
}

SpeedRow Row(const std::string& engine, const std::string& policy, double ttft, double tpot, double peak = 0) {
  SpeedRow row{.spec = {.engine = engine, .policy = policy}, .speed_case = {0, 100}};
  RunFigures figures;
  figures.ttft_ms = ttft;
  figures.tpot_ms = tpot;
  figures.peak_rss_bytes = peak;
  figures.output = {1, 2, 3};
  row.runs = {figures};
  return row;
}

TEST(SummarizeTest, MarksTheBestRowOfEachEngineAndFigure) {
  std::vector<SpeedRow> rows = {Row("loopserve", "dense", 5, 1), Row("llama.cpp", "flash_attention", 10, 4),
                                Row("llama.cpp", "no_flash_attention", 12, 3)};
  rows[2].runs[0].output = {1, 9, 3};
  rows[2].runs.push_back(rows[2].runs[0]);
  rows[2].runs[1].peak_rss_bytes = 77;
  Summarize(&rows);
  EXPECT_TRUE(rows[0].best_ttft && rows[0].best_tpot);
  EXPECT_TRUE(rows[1].best_ttft && !rows[1].best_tpot);
  EXPECT_TRUE(!rows[2].best_ttft && rows[2].best_tpot);
  EXPECT_EQ(rows[2].same_output_tokens, 1);
  EXPECT_EQ(rows[2].median.peak_rss_bytes, 77);
}

TEST(FormatSpeedTableTest, ShowsRatiosAndReasons) {
  SpeedReport report;
  report.rows = {Row("loopserve", "dense", 5, 1), Row("llama.cpp", "flash_attention", 10, 4)};
  Summarize(&report.rows);
  report.skipped = {{.spec = {.engine = "openvino", .policy = "full"}, .reason = "cannot read it"}};
  ModelCost cost;
  cost.params.head_dim = 64;
  const std::string table = FormatSpeedTable(report, cost, {.f32_gflops = 100, .read_gbytes_per_s = 20}, 2);
  EXPECT_THAT(table, testing::ContainsRegex("llama.cpp +flash_attention \\(best\\) +0 +100 +10.0 +0.50"));
  EXPECT_THAT(table, testing::HasSubstr("skipped: openvino full: cannot read it"));
  EXPECT_THAT(table, testing::HasSubstr("100 GFLOP/s in f32"));
}

TEST(MachineBoundTest, IsMeasured) {
  const MachineBound bound = MeasureMachineBound(1);
  EXPECT_GT(bound.f32_gflops, 0.1);
  EXPECT_GT(bound.read_gbytes_per_s, 0.05);
}

TEST(OwnEngineTest, EveryRunStartsFromTheContext) {
  const TempDir folder;
  const std::string path = (folder.path() / "model.gguf").string();
  ASSERT_TRUE(WriteTinyGguf(TinyModel(TinyFamily::kLlama), path).ok());
  auto engine = MakeOwnEngine({.engine = "loopserve", .policy = "dense", .model_path = path, .threads = 2});
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  std::vector<Token> prompt(150);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<Token>(i * 7 % 200);
  ASSERT_TRUE((*engine)->Prepare({}).ok());
  const auto whole = (*engine)->Run(prompt, 6);
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  ASSERT_EQ(whole->output.size(), 6u);
  ASSERT_TRUE((*engine)->Prepare(std::span(prompt).first(100)).ok());
  for (int round = 0; round < 2; ++round) {
    const auto figures = (*engine)->Run(prompt, 6);
    ASSERT_TRUE(figures.ok()) << figures.status().message();
    EXPECT_EQ(figures->output, whole->output);
    EXPECT_GT(figures->ttft_ms, 0);
    EXPECT_EQ(figures->prefill_density, 1.0);
  }
  EXPECT_EQ(ParseLinearPath("int8").value(), LinearPath::kInt8);
  EXPECT_EQ(ParseLinearPath("fast").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseKvPrecision("f64").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace loopserve::bench
