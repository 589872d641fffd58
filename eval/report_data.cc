#include "eval/report_data.h"

#include <algorithm>

#include "eval/task.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

constexpr char kNone[] = "-";

}  // namespace

ReportData::ReportData(const StoredResults& results) : results_(results), index_(results.played) {
  for (const std::string& policy : policies()) {
    if (IsOurs(policy) && (ours_.empty() || policy == "loopserve")) ours_ = policy;
  }
  positions_ = index_.Values(&PlayedTurn::position);
  // The order of a text, not of the alphabet.
  const std::vector<Position> order = AllOf<Position>();
  std::ranges::stable_sort(positions_, {}, [&](const std::string& name) {
    return std::ranges::find(order, name, [](Position p) { return std::string(NameOf(p)); }) - order.begin();
  });
}

bool ReportData::has_dense() const { return std::ranges::find(policies(), kDensePolicy) != policies().end(); }

ReportData::NamedFilters ReportData::TurnFilters() const {
  NamedFilters filters;
  for (const int64_t number : index_.Turns()) {
    filters.emplace_back("turn " + std::to_string(number),
                         [number](const PlayedTurn& turn) { return turn.turn == number; });
  }
  return filters;
}

ReportData::NamedFilters ReportData::FieldFilters(std::string PlayedTurn::*field) const {
  NamedFilters filters;
  for (const std::string& value : index_.Values(field)) filters.emplace_back(value, Where(field, value));
  return filters;
}

Estimate ReportData::MeanOf(const std::string& policy, const Filter& filter, const Figure& figure) const {
  return EstimateMean(index_.Clusters(policy, filter, figure));
}

Estimate ReportData::PlainMeanOf(const std::string& policy, const Filter& filter, const Figure& figure) const {
  return EstimateMean(index_.Clusters(policy, filter, figure), /*resamples=*/0);
}

Estimate ReportData::PlainMedianOf(const std::string& policy, const Filter& filter, const Figure& figure) const {
  return EstimateMedian(index_.ValuesOf(policy, filter, figure), /*resamples=*/0);
}

Estimate ReportData::Ratio(const std::string& above, const std::string& below, const Filter& filter,
                           const Figure& figure) const {
  return EstimateMedian(index_.Quotients(above, below, filter, figure));
}

Estimate ReportData::PlainRatio(const std::string& above, const std::string& below, const Filter& filter,
                                const Figure& figure) const {
  return EstimateMedian(index_.Quotients(above, below, filter, figure), /*resamples=*/0);
}

bool IsOurs(const std::string& policy) { return policy == "loopserve" || policy.starts_with("loopserve:"); }

bool EveryTurn(const PlayedTurn&) { return true; }

ReportData::Filter Where(std::string PlayedTurn::*field, std::string value) {
  return [field, value = std::move(value)](const PlayedTurn& turn) { return turn.*field == value; };
}

ReportData::Filter Both(ReportData::Filter a, ReportData::Filter b) {
  return [a = std::move(a), b = std::move(b)](const PlayedTurn& turn) { return a(turn) && b(turn); };
}

ReportData::Figure Of(std::optional<double> PlayedTurn::*member) {
  return [member](const PlayedTurn& turn) { return turn.*member; };
}

std::optional<double> ScoreOf(const PlayedTurn& turn) { return turn.score; }

std::optional<double> ReadingAttention(const PlayedTurn& turn) {
  if (!turn.prefill_attention_ms || !turn.prefill_selection_ms) return std::nullopt;
  return *turn.prefill_attention_ms + *turn.prefill_selection_ms;
}

std::optional<double> WritingAttention(const PlayedTurn& turn) {
  // The first token comes from the prompt's logits.
  if (!turn.decode_attention_ms || !turn.decode_selection_ms || turn.output_tokens < 2) return std::nullopt;
  return (*turn.decode_attention_ms + *turn.decode_selection_ms) / static_cast<double>(turn.output_tokens - 1);
}

std::optional<double> TurnTime(const PlayedTurn& turn) {
  if (!turn.ttft_ms || !turn.tpot_ms) return std::nullopt;
  return *turn.ttft_ms + (kAnswerTokens - 1) * *turn.tpot_ms;
}

std::optional<double> AttentionTime(const PlayedTurn& turn) {
  const std::optional<double> reading = ReadingAttention(turn), writing = WritingAttention(turn);
  if (!reading || !writing) return std::nullopt;
  return *reading + (kAnswerTokens - 1) * *writing;
}

std::string Interval(const Estimate& estimate, double factor, int digits) {
  if (estimate.n_values == 0) return kNone;
  if (!estimate.has_interval()) return FormatFixed(factor * estimate.mean, digits);
  return FormatFixed(factor * estimate.mean, digits) + " [" + FormatFixed(factor * estimate.low, digits) + ", " +
         FormatFixed(factor * estimate.high, digits) + "]";
}

std::string Plain(const Estimate& estimate, double factor, int digits) {
  return estimate.n_values == 0 ? kNone : FormatFixed(factor * estimate.mean, digits);
}

std::string SignedInterval(const Estimate& estimate) {
  if (estimate.n_values == 0) return kNone;
  return (estimate.mean >= 0 ? "+" : "") + Interval(estimate, 100, 1);
}

}  // namespace loopserve::eval
