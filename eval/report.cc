#include "eval/report.h"

#include "eval/report_data.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

/// "Within one point" of full attention.
constexpr double kTolerance = 0.01;

void AddRun(const ReportData& data, Report* report) {
  ReportTable run{"The run", "", {"", ""}, {}};
  for (const auto& [key, value] : data.results().run) run.rows.push_back({key, value});
  int64_t turns = 0;
  for (const PlayedDialogue& played : data.results().played) turns += std::ssize(played.turns);
  run.rows.push_back({"dialogues", FormatCount(data.index().n_dialogues())});
  run.rows.push_back({"answers, of all policies together", FormatCount(turns)});
  run.rows.push_back({"plays that failed and are left out", FormatCount(data.index().n_failed())});
  report->parts.emplace_back(std::move(run));
  ReportTable settings{"Policies", "", {"policy", "settings"}, {}};
  for (const auto& [policy, value] : data.results().policies) settings.rows.push_back({policy, value});
  if (!settings.rows.empty()) report->parts.emplace_back(std::move(settings));
}

/// "; it costs 0.90 of its time (attention alone: 0.40 of its), KV read 0.12 against 1.00".
std::string CostOf(const ReportData& data, const std::string& policy, const ReportData::Filter& filter) {
  std::string text;
  const Estimate time = data.PlainRatio(data.ours(), policy, filter, TurnTime);
  if (time.n_values > 0) text += ", in " + Plain(time, 1, 2) + " of its time";
  const Estimate attention = data.PlainRatio(data.ours(), policy, filter, AttentionTime);
  if (attention.n_values > 0) text += ", " + Plain(attention, 1, 2) + " of its attention's time";
  const ReportData::Figure kv_read = Of(&PlayedTurn::decode_kv_fraction);
  const Estimate own_read = data.PlainMeanOf(data.ours(), filter, kv_read);
  const Estimate other_read = data.PlainMeanOf(policy, filter, kv_read);
  if (own_read.n_values == 0 || other_read.n_values == 0) return text;
  return text + ", KV read " + Plain(own_read, 1, 3) + " against " + Plain(other_read, 1, 3);
}

std::string Verdict(const ReportData& data, const std::string& policy, const std::string& position,
                    const Estimate& difference) {
  const bool is_full = policy == kDensePolicy;
  const bool holds = difference.mean >= (is_full ? -kTolerance : 0.0);
  std::string text = holds ? "Yes" : "NO";
  text += ", against " + policy + ", question at the " + position + ": " + SignedInterval(difference) + " points";
  if (is_full) text += " (one point below full attention is allowed)";
  return text + CostOf(data, policy, Where(&PlayedTurn::position, position)) + "; " + FormatCount(difference.n_values) +
         " answers of " + FormatCount(difference.n_clusters) + " dialogues.";
}

/// One sentence for each other policy and position: is ours at least as good, and at which cost?
void AddConclusions(const ReportData& data, Report* report) {
  if (data.ours().empty()) return;
  ReportList list{"Is " + data.ours() + " at least as good?", {}};
  for (const std::string& policy : data.policies()) {
    if (policy == data.ours()) continue;
    for (const std::string& position : data.positions()) {
      const Estimate difference =
          data.index().Difference(data.ours(), policy, Where(&PlayedTurn::position, position), ScoreOf);
      if (difference.n_values > 0) list.items.push_back(Verdict(data, policy, position, difference));
    }
  }
  if (!list.items.empty()) report->parts.emplace_back(std::move(list));
}

}  // namespace

Report MakeReport(const StoredResults& results) {
  const ReportData data(results);
  Report report;
  report.title = "Results of multi-turn dialogues";
  AddRun(data, &report);
  AddConclusions(data, &report);
  AddScores(data, &report);
  AddCosts(data, &report);
  return report;
}

}  // namespace loopserve::eval
