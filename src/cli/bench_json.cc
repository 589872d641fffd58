// What `loopserve bench` writes and reads, apart from running it.
#include "src/cli/bench.h"

namespace loopserve {
namespace {

using bench::SpeedRow;

const SpeedRow* OurRow(const bench::SpeedReport& report, const bench::SpeedCase& speed_case) {
  for (const SpeedRow& row : report.rows) {
    if (row.spec.engine == "loopserve" && row.speed_case.context_tokens == speed_case.context_tokens &&
        row.speed_case.new_tokens == speed_case.new_tokens) {
      return &row;
    }
  }
  return nullptr;
}

Json RowToJson(const SpeedRow& row, const SpeedRow* ours, const bench::ModelCost& cost) {
  const bench::RunFigures& figures = row.median;
  const bench::Achieved achieved = bench::AchievedBy(row, cost);
  std::optional<double> ttft_ratio, tpot_ratio;
  if (ours != nullptr) ttft_ratio = ours->median.ttft_ms / figures.ttft_ms;
  if (ours != nullptr && ours->median.tpot_ms && figures.tpot_ms) tpot_ratio = *ours->median.tpot_ms / *figures.tpot_ms;
  std::optional<int64_t> peak;
  if (figures.peak_rss_bytes) peak = static_cast<int64_t>(*figures.peak_rss_bytes);
  return {{"engine", row.spec.engine},
          {"policy", row.spec.policy},
          {"context_tokens", row.speed_case.context_tokens},
          {"new_tokens", row.speed_case.new_tokens},
          {"ttft_ms", figures.ttft_ms},
          {"tpot_ms", JsonOrNull(figures.tpot_ms)},
          {"itl_max_over_median", JsonOrNull(figures.itl_max_over_median)},
          {"linear_ms", JsonOrNull(figures.linear_ms)},
          {"attention_ms", JsonOrNull(figures.attention_ms)},
          {"selection_ms", JsonOrNull(figures.selection_ms)},
          {"prefill_density", JsonOrNull(figures.prefill_density)},
          {"coverage_heldout", JsonOrNull(figures.coverage_heldout)},
          {"output_error", JsonOrNull(figures.output_error)},
          {"output_error_p90", JsonOrNull(figures.output_error_p90)},
          {"floor_density", JsonOrNull(figures.floor_density)},
          {"floor_error", JsonOrNull(figures.floor_error)},
          {"decode_linear_ms", JsonOrNull(figures.decode_linear_ms)},
          {"decode_attention_ms", JsonOrNull(figures.decode_attention_ms)},
          {"decode_selection_ms", JsonOrNull(figures.decode_selection_ms)},
          {"decode_coverage", JsonOrNull(figures.decode_coverage)},
          {"decode_coverage_p10", JsonOrNull(figures.decode_coverage_p10)},
          {"decode_kv_fraction", JsonOrNull(figures.decode_kv_fraction)},
          {"peak_rss_bytes", JsonOrNull(peak)},
          {"ttft_min_ms", row.ttft_min_ms},
          {"ttft_max_ms", row.ttft_max_ms},
          {"tpot_min_ms", JsonOrNull(row.tpot_min_ms)},
          {"tpot_max_ms", JsonOrNull(row.tpot_max_ms)},
          {"best_ttft_of_engine", row.best_ttft},
          {"best_tpot_of_engine", row.best_tpot},
          {"ttft_ours_over_this", JsonOrNull(ttft_ratio)},
          {"tpot_ours_over_this", JsonOrNull(tpot_ratio)},
          {"prefill_gflops", achieved.prefill_gflops},
          {"decode_gbytes_per_second", JsonOrNull(achieved.decode_gbytes_per_second)},
          {"same_output_tokens", row.same_output_tokens}};
}

}  // namespace

std::vector<bench::SpeedCase> SpeedCases(const std::vector<int64_t>& contexts, int64_t new_tokens,
                                         const std::vector<int64_t>& whole_prompts) {
  std::vector<bench::SpeedCase> cases;
  for (const int64_t context : contexts) cases.push_back({.context_tokens = context, .new_tokens = new_tokens});
  for (const int64_t prompt : whole_prompts) cases.push_back({.context_tokens = 0, .new_tokens = prompt});
  return cases;
}

Json SpeedReportToJson(const bench::SpeedReport& report, const bench::ModelCost& cost) {
  Json rows = Json::array();
  for (const SpeedRow& row : report.rows) rows.push_back(RowToJson(row, OurRow(report, row.speed_case), cost));
  Json skipped = Json::array();
  for (const bench::SpeedSkip& skip : report.skipped) {
    skipped.push_back({{"engine", skip.spec.engine}, {"policy", skip.spec.policy}, {"reason", skip.reason}});
  }
  return {{"rows", std::move(rows)}, {"skipped", std::move(skipped)}};
}

}  // namespace loopserve
