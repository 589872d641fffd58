#include "eval/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "eval/result_index.h"
#include "eval/task.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

using Filter = ResultIndex::Filter;
using Figure = ResultIndex::Figure;

constexpr char kDense[] = "dense";
constexpr char kNone[] = "-";
/// A turn's time is stated for an answer of this many tokens: policies write answers of different lengths.
constexpr int kAnswerTokens = 64;
/// "Within one point" of full attention.
constexpr double kTolerance = 0.01;

bool Every(const PlayedTurn&) { return true; }
std::optional<double> Score(const PlayedTurn& turn) { return turn.score; }

Figure Of(std::optional<double> PlayedTurn::*member) {
  return [member](const PlayedTurn& turn) { return turn.*member; };
}
Filter Where(std::string PlayedTurn::*field, std::string value) {
  return [field, value = std::move(value)](const PlayedTurn& turn) { return turn.*field == value; };
}
Filter OfTurn(int64_t number) {
  return [number](const PlayedTurn& turn) { return turn.turn == number; };
}
Filter Both(Filter a, Filter b) {
  return [a = std::move(a), b = std::move(b)](const PlayedTurn& turn) { return a(turn) && b(turn); };
}

std::string Interval(const Estimate& estimate, double factor, int digits) {
  if (estimate.n_values == 0) return kNone;
  return FormatFixed(factor * estimate.mean, digits) + " [" + FormatFixed(factor * estimate.low, digits) + ", " +
         FormatFixed(factor * estimate.high, digits) + "]";
}

std::string Plain(const Estimate& estimate, double factor, int digits) {
  return estimate.n_values == 0 ? kNone : FormatFixed(factor * estimate.mean, digits);
}

/// "+1.2 [-0.3, 2.9]".
std::string SignedInterval(const Estimate& estimate) {
  if (estimate.n_values == 0) return kNone;
  return (estimate.mean >= 0 ? "+" : "") + Interval(estimate, 100, 1);
}

bool IsOurs(const std::string& policy) { return policy == "loopserve" || policy.starts_with("loopserve:"); }

class Builder {
 public:
  Builder(const RunInputs& inputs, const RunInputs& policies, std::span<const PlayedDialogue> played)
      : inputs_(inputs), settings_(policies), index_(played) {
    for (const std::string& policy : index_.policies()) {
      if (IsOurs(policy) && (ours_.empty() || policy == "loopserve")) ours_ = policy;
    }
    positions_ = index_.Values(&PlayedTurn::position);
    // The order of a text, not of the alphabet.
    const std::vector<Position> order = AllOf<Position>();
    std::ranges::stable_sort(positions_, {}, [&](const std::string& name) {
      return std::ranges::find(order, name, [](Position p) { return std::string(NameOf(p)); }) - order.begin();
    });
  }

  Report Make() {
    report_.title = "Results of multi-turn dialogues";
    AddRun();
    AddConclusions();
    for (const std::string& position : positions_) AddScores(position);
    AddBy("Scores by turn", TurnFilters());
    AddBy("Scores by what the question depends on", FieldFilters(&PlayedTurn::dependency));
    AddDifferences();
    AddFidelity();
    AddSpeed();
    AddSpeedByTurn();
    AddPlot();
    return std::move(report_);
  }

 private:
  using NamedFilters = std::vector<std::pair<std::string, Filter>>;

  const std::vector<std::string>& policies() const { return index_.policies(); }
  bool has_dense() const { return std::ranges::find(policies(), kDense) != policies().end(); }

  NamedFilters TurnFilters() const {
    NamedFilters filters;
    for (const int64_t turn : index_.Turns()) filters.emplace_back("turn " + std::to_string(turn), OfTurn(turn));
    return filters;
  }
  NamedFilters FieldFilters(std::string PlayedTurn::*field) const {
    NamedFilters filters;
    for (const std::string& value : index_.Values(field)) filters.emplace_back(value, Where(field, value));
    return filters;
  }

  Estimate MeanOf(const std::string& policy, const Filter& filter, const Figure& figure) const {
    return EstimateMean(index_.Clusters(policy, filter, figure));
  }

  /// Time of a turn with an answer of kAnswerTokens, milliseconds; 0 if it was not measured.
  double TurnTime(const std::string& policy, const Filter& filter) const {
    const Estimate first = MeanOf(policy, filter, Of(&PlayedTurn::ttft_ms));
    const Estimate each = MeanOf(policy, filter, Of(&PlayedTurn::tpot_ms));
    return first.n_values == 0 ? 0 : first.mean + (kAnswerTokens - 1) * each.mean;
  }

  void AddRun() {
    ReportTable run{"The run", "", {"", ""}, {}};
    for (const auto& [key, value] : inputs_) run.rows.push_back({key, value});
    run.rows.push_back({"dialogues", FormatCount(index_.n_dialogues())});
    run.rows.push_back({"plays that failed and are left out", FormatCount(index_.n_failed())});
    report_.parts.emplace_back(std::move(run));
    ReportTable settings{"Policies", "", {"policy", "settings"}, {}};
    for (const auto& [policy, value] : settings_) settings.rows.push_back({policy, value});
    if (!settings.rows.empty()) report_.parts.emplace_back(std::move(settings));
  }

  /// One sentence for each other policy and position: is ours at least as good, and at which cost?
  void AddConclusions() {
    if (ours_.empty() || positions_.empty()) return;
    ReportList list{"Is " + ours_ + " at least as good?", {}};
    for (const std::string& policy : policies()) {
      if (policy == ours_) continue;
      for (const std::string& position : positions_) {
        const Filter filter = Where(&PlayedTurn::position, position);
        const Estimate difference = index_.Difference(ours_, policy, filter, Score);
        if (difference.n_values == 0) continue;
        list.items.push_back(Verdict(policy, position, difference, filter));
      }
    }
    if (!list.items.empty()) report_.parts.emplace_back(std::move(list));
  }

  std::string Verdict(const std::string& policy, const std::string& position, const Estimate& difference,
                      const Filter& filter) const {
    const bool is_full = policy == kDense;
    const bool holds = difference.mean >= (is_full ? -kTolerance : 0.0);
    std::string text = holds ? "Yes" : "NO";
    text += ", against " + policy + ", question at the " + position + ": " + SignedInterval(difference) + " points";
    if (is_full) text += " (one point below full attention is allowed)";
    const double own_time = TurnTime(ours_, filter), other_time = TurnTime(policy, filter);
    if (own_time > 0 && other_time > 0) text += ", in " + FormatFixed(own_time / other_time, 2) + " of its time";
    return text + "; " + FormatCount(difference.n_values) + " answers of " + FormatCount(difference.n_clusters) +
           " dialogues.";
  }

  void AddScores(const std::string& position) {
    ReportTable table{"Scores, question at the " + position,
                      "Mean score times 100 by dataset, and of all answers with its 95 % interval (dialogues drawn "
                      "anew, " +
                          FormatCount(kResamples) + " times).",
                      {"policy"},
                      {}};
    const Filter at = Where(&PlayedTurn::position, position);
    const std::vector<std::string> datasets = index_.Values(&PlayedTurn::dataset);
    table.columns.insert(table.columns.end(), datasets.begin(), datasets.end());
    table.columns.insert(table.columns.end(), {"all", "answers", "dialogues"});
    for (const std::string& policy : policies()) {
      std::vector<std::string> row = {policy};
      for (const std::string& dataset : datasets) {
        row.push_back(Plain(MeanOf(policy, Both(at, Where(&PlayedTurn::dataset, dataset)), Score), 100, 1));
      }
      AddMean(MeanOf(policy, at, Score), &row);
      table.rows.push_back(std::move(row));
    }
    report_.parts.emplace_back(std::move(table));
  }

  static void AddMean(const Estimate& all, std::vector<std::string>* row) {
    row->push_back(Interval(all, 100, 1));
    row->push_back(FormatCount(all.n_values));
    row->push_back(FormatCount(all.n_clusters));
  }

  void AddBy(const std::string& title, const NamedFilters& filters) {
    if (filters.empty()) return;
    ReportTable table{title, "Mean score times 100 with its 95 % interval.", {"policy"}, {}};
    for (const auto& [name, filter] : filters) table.columns.push_back(name);
    table.columns.insert(table.columns.end(), {"all", "answers", "dialogues"});
    for (const std::string& policy : policies()) {
      std::vector<std::string> row = {policy};
      for (const auto& [name, filter] : filters) row.push_back(Interval(MeanOf(policy, filter, Score), 100, 1));
      AddMean(MeanOf(policy, Every, Score), &row);
      table.rows.push_back(std::move(row));
    }
    report_.parts.emplace_back(std::move(table));
  }

  void AddDifferences() {
    if (!has_dense() || positions_.empty()) return;
    ReportTable table{"Differences to full attention",
                      "Score of the policy less score of dense, answer by answer, in points, with the 95 % interval: "
                      "an interval without 0 is a difference.",
                      {"policy"},
                      {}};
    table.columns.insert(table.columns.end(), positions_.begin(), positions_.end());
    table.columns.insert(table.columns.end(), {"all", "answers"});
    for (const std::string& policy : policies()) {
      if (policy == kDense) continue;
      std::vector<std::string> row = {policy};
      for (const std::string& position : positions_) {
        row.push_back(SignedInterval(index_.Difference(policy, kDense, Where(&PlayedTurn::position, position), Score)));
      }
      const Estimate all = index_.Difference(policy, kDense, Every, Score);
      row.push_back(SignedInterval(all));
      row.push_back(FormatCount(all.n_values));
      table.rows.push_back(std::move(row));
    }
    if (!table.rows.empty()) report_.parts.emplace_back(std::move(table));
  }

  void AddFidelity() {
    ReportTable table{"Fidelity to full attention",
                      "Over dense's own answers, both led through the dense dialogue: mean KL to dense in nats, share "
                      "of tokens with the same likeliest one; NLL of the reference answers. With 95 % intervals.",
                      {"policy", "KL", "top-1 agreement, %", "NLL of references", "answers"},
                      {}};
    bool any = false;
    for (const std::string& policy : policies()) {
      const Estimate kl = MeanOf(policy, Every, Of(&PlayedTurn::kl));
      const Estimate nll = MeanOf(policy, Every, Of(&PlayedTurn::reference_nll));
      any |= kl.n_values > 0 || nll.n_values > 0;
      table.rows.push_back({policy, Interval(kl, 1, 4),
                            Interval(MeanOf(policy, Every, Of(&PlayedTurn::top1_agreement)), 100, 2),
                            Interval(nll, 1, 4), FormatCount(std::max(kl.n_values, nll.n_values))});
    }
    if (any) report_.parts.emplace_back(std::move(table));
  }

  /// Dense's time / the policy's, over the turns that both played.
  std::string SpeedUp(const std::string& policy, std::optional<double> PlayedTurn::*member,
                      const Filter& filter) const {
    if (!has_dense()) return kNone;
    const auto [dense, own] = index_.SharedClusters(kDense, policy, filter, Of(member));
    const Estimate ratio = EstimateRatio(dense, own);
    return Interval(ratio, 1, 2);
  }

  void AddSpeed() {
    ReportTable table{"Speed and memory",
                      "Means over turns: milliseconds to the first token and for each token after it, how many times "
                      "faster than dense (sums over the same turns, 95 % interval), computed pairs / causal pairs of "
                      "prefill, KV read / held of decoding, KV after the turn, largest resident memory.",
                      {"policy", "TTFT, ms", "times faster", "TPOT, ms", "times faster", "density", "KV read",
                       "KV, MiB", "peak, MiB"},
                      {}};
    for (const std::string& policy : policies()) {
      const auto mean = [&](std::optional<double> PlayedTurn::*member, double factor, int digits) {
        return Plain(MeanOf(policy, Every, Of(member)), factor, digits);
      };
      constexpr double kMiB = 1.0 / (1 << 20);
      table.rows.push_back({policy, mean(&PlayedTurn::ttft_ms, 1, 0), SpeedUp(policy, &PlayedTurn::ttft_ms, Every),
                            mean(&PlayedTurn::tpot_ms, 1, 1), SpeedUp(policy, &PlayedTurn::tpot_ms, Every),
                            mean(&PlayedTurn::prefill_density, 1, 3), mean(&PlayedTurn::decode_kv_fraction, 1, 3),
                            mean(&PlayedTurn::kv_bytes, kMiB, 1), mean(&PlayedTurn::peak_rss_bytes, kMiB, 0)});
    }
    report_.parts.emplace_back(std::move(table));
  }

  void AddSpeedByTurn() {
    const NamedFilters turns = TurnFilters();
    if (turns.size() < 2) return;
    ReportTable table{"Milliseconds to the first token, by turn", "", {"policy"}, {}};
    for (const auto& [name, filter] : turns) {
      table.columns.push_back(name);
      table.columns.push_back("times faster");
    }
    for (const std::string& policy : policies()) {
      std::vector<std::string> row = {policy};
      for (const auto& [name, filter] : turns) {
        row.push_back(Plain(MeanOf(policy, filter, Of(&PlayedTurn::ttft_ms)), 1, 0));
        row.push_back(SpeedUp(policy, &PlayedTurn::ttft_ms, filter));
      }
      table.rows.push_back(std::move(row));
    }
    report_.parts.emplace_back(std::move(table));
  }

  void AddPlot() {
    ReportPlot plot{"Score against time",
                    "milliseconds of a turn with an answer of " + std::to_string(kAnswerTokens) + " tokens",
                    "mean score x 100, with 95 % interval",
                    {}};
    for (const std::string& policy : policies()) {
      const Estimate score = MeanOf(policy, Every, Score);
      const double time = TurnTime(policy, Every);
      if (score.n_values == 0 || time <= 0) continue;
      plot.points.push_back({policy, time, 100 * score.mean, 100 * score.low, 100 * score.high, IsOurs(policy)});
    }
    if (plot.points.size() > 1) report_.parts.emplace_back(std::move(plot));
  }

  const RunInputs& inputs_;
  const RunInputs& settings_;
  ResultIndex index_;
  std::string ours_;
  std::vector<std::string> positions_;
  Report report_;
};

}  // namespace

Report MakeReport(const RunInputs& inputs, const RunInputs& policies, std::span<const PlayedDialogue> played) {
  return Builder(inputs, policies, played).Make();
}

}  // namespace loopserve::eval
