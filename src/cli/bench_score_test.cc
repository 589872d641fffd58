#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/cli/bench.h"
#include "src/cli/score.h"

namespace loopserve {
namespace {

TEST(SpeedCasesTest, ContextsThenWholePrompts) {
  const auto cases = SpeedCases({0, 512}, 64, {2048});
  ASSERT_EQ(cases.size(), 3u);
  EXPECT_EQ(cases[1].context_tokens, 512);
  EXPECT_EQ(cases[1].new_tokens, 64);
  EXPECT_EQ(cases[2].context_tokens, 0);
  EXPECT_EQ(cases[2].new_tokens, 2048);
}

TEST(SpeedReportToJsonTest, HasTheDocumentedKeysAndRatios) {
  bench::SpeedReport report;
  for (const char* engine : {"loopserve", "llama.cpp"}) {
    bench::SpeedRow row{.spec = {.engine = engine, .policy = "p"}, .speed_case = {100, 10}};
    bench::RunFigures figures;
    figures.ttft_ms = report.rows.empty() ? 5 : 20;
    figures.output = {1};
    row.runs = {figures};
    report.rows.push_back(row);
  }
  bench::Summarize(&report.rows);
  report.skipped.push_back({.spec = {.engine = "openvino", .policy = "full"}, .reason = "no"});
  const Json json = SpeedReportToJson(report, {});
  const Json& row = json["rows"][1];
  for (const char* key : {"engine",
                          "policy",
                          "context_tokens",
                          "new_tokens",
                          "ttft_ms",
                          "tpot_ms",
                          "itl_max_over_median",
                          "linear_ms",
                          "attention_ms",
                          "selection_ms",
                          "prefill_density",
                          "coverage_heldout",
                          "output_error",
                          "output_error_p90",
                          "floor_density",
                          "floor_error",
                          "decode_linear_ms",
                          "decode_attention_ms",
                          "decode_selection_ms",
                          "decode_coverage",
                          "decode_coverage_p10",
                          "decode_kv_fraction",
                          "peak_rss_bytes"}) {
    EXPECT_TRUE(row.contains(key)) << key;
  }
  EXPECT_EQ(row["ttft_ours_over_this"], 0.25);
  EXPECT_TRUE(row["tpot_ms"].is_null());
  EXPECT_EQ(json["skipped"][0]["reason"], "no");
}

TEST(TextScoreToJsonTest, NullsWithoutAReference) {
  bench::TextScore score;
  score.tokens = 7;
  score.nll = 2.5;
  const Json json = TextScoreToJson(score);
  EXPECT_EQ(json["tokens"], 7);
  EXPECT_TRUE(json["kl"].is_null() && json["top1_agreement"].is_null() && json["nll_against"].is_null());
  score.kl = 0.5;
  score.nll_against = 2;
  score.kl_p99 = score.kl_max = 1;
  score.top1_agreement = 0.75;
  EXPECT_EQ(TextScoreToJson(score)["kl"], 0.5);
  EXPECT_THAT(FormatTextScore(score, "llama.cpp:arithmetic=exact"), testing::HasSubstr("75.00%"));
}

}  // namespace
}  // namespace loopserve
