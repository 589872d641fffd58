// The report's cost: time, attention, KV, of each policy against each other, and beside the score.
#include <algorithm>
#include <cstdint>
#include <functional>

#include "eval/report_data.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

constexpr double kMiB = 1.0 / (1 << 20);

/// Dense's figure / the policy's, of the turns that both played.
std::string SpeedUp(const ReportData& data, const std::string& policy, const ReportData::Filter& filter,
                    const ReportData::Figure& figure) {
  return data.has_dense() ? Interval(data.Ratio(kDensePolicy, policy, filter, figure), 1, 2) : "-";
}

void AddSpeed(const ReportData& data, Report* report) {
  ReportTable table{
      "Speed and memory",
      "Milliseconds to the first token and for each token after it (the median turn's), how many times faster than "
      "dense (the median of the quotients of the same turns, 95 % interval); means over turns: computed pairs / causal "
      "pairs of prefill, KV read / held of decoding, KV after the turn (methods that evict keep the whole of it for "
      "forks and rewinds, and what they attend beside it), largest resident memory.",
      {"policy", "TTFT, ms", "times faster", "TPOT, ms", "times faster", "density", "KV read", "KV, MiB", "peak, MiB",
       "turns"},
      {}};
  for (const std::string& policy : data.policies()) {
    const auto mean = [&](std::optional<double> PlayedTurn::*member, double factor, int digits) {
      return Plain(data.PlainMeanOf(policy, EveryTurn, Of(member)), factor, digits);
    };
    const Estimate ttft = data.PlainMedianOf(policy, EveryTurn, Of(&PlayedTurn::ttft_ms));
    table.rows.push_back({policy, Plain(ttft, 1, 0), SpeedUp(data, policy, EveryTurn, Of(&PlayedTurn::ttft_ms)),
                          Plain(data.PlainMedianOf(policy, EveryTurn, Of(&PlayedTurn::tpot_ms)), 1, 1),
                          SpeedUp(data, policy, EveryTurn, Of(&PlayedTurn::tpot_ms)),
                          mean(&PlayedTurn::prefill_density, 1, 3), mean(&PlayedTurn::decode_kv_fraction, 1, 3),
                          mean(&PlayedTurn::kv_bytes, kMiB, 1), mean(&PlayedTurn::peak_rss_bytes, kMiB, 0),
                          FormatCount(ttft.n_values)});
  }
  report->parts.emplace_back(std::move(table));
}

/// A time's median in each turn, and how many times less it is than dense's.
void AddTimeByTurn(const ReportData& data, const std::string& title, std::optional<double> PlayedTurn::*time,
                   int digits, Report* report) {
  const ReportData::NamedFilters turns = data.TurnFilters();
  if (turns.size() < 2) return;
  ReportTable table{title, "Medians, as above.", {"policy"}, {}};
  for (const auto& [name, filter] : turns) {
    table.columns.push_back(name);
    table.columns.push_back("times faster");
  }
  for (const std::string& policy : data.policies()) {
    std::vector<std::string> row = {policy};
    for (const auto& [name, filter] : turns) {
      row.push_back(Plain(data.PlainMedianOf(policy, filter, Of(time)), 1, digits));
      row.push_back(SpeedUp(data, policy, filter, Of(time)));
    }
    table.rows.push_back(std::move(row));
  }
  report->parts.emplace_back(std::move(table));
}

void AddMeanByTurn(const ReportData& data, const std::string& title, std::optional<double> PlayedTurn::*member,
                   double factor, int digits, Report* report) {
  const ReportData::NamedFilters turns = data.TurnFilters();
  if (turns.size() < 2) return;
  ReportTable table{title, "Means, as above.", {"policy"}, {}};
  for (const auto& [name, filter] : turns) table.columns.push_back(name);
  for (const std::string& policy : data.policies()) {
    std::vector<std::string> row = {policy};
    for (const auto& [name, filter] : turns) {
      row.push_back(Plain(data.PlainMeanOf(policy, filter, Of(member)), factor, digits));
    }
    table.rows.push_back(std::move(row));
  }
  report->parts.emplace_back(std::move(table));
}

void AddSpeedByTurn(const ReportData& data, Report* report) {
  AddTimeByTurn(data, "Milliseconds to the first token, by turn", &PlayedTurn::ttft_ms, 0, report);
  AddTimeByTurn(data, "Milliseconds for each token after it, by turn", &PlayedTurn::tpot_ms, 1, report);
  AddMeanByTurn(data, "Computed pairs / causal pairs of prefill, by turn", &PlayedTurn::prefill_density, 1, 3, report);
  AddMeanByTurn(data, "KV read / held while writing, by turn", &PlayedTurn::decode_kv_fraction, 1, 3, report);
  AddMeanByTurn(data, "KV after the turn, MiB, by turn", &PlayedTurn::kv_bytes, kMiB, 1, report);
  AddMeanByTurn(data, "Largest resident memory, MiB, by turn", &PlayedTurn::peak_rss_bytes, kMiB, 0, report);
}

/// Each policy's score beside what it costs, and ours less it: what "at equal cost" is read from.
void AddScoreBesideCost(const ReportData& data, Report* report) {
  ReportTable table{"Score beside cost",
                    "Mean score times 100; milliseconds of a turn with an answer of " + std::to_string(kAnswerTokens) +
                        " tokens, and of its attention and selection alone (the median turn's); prefill's density; KV "
                        "read and KV held. "
                        "With 95 % intervals.",
                    {"policy", "score"},
                    {}};
  const bool has_ours = !data.ours().empty();
  if (has_ours) {
    table.note += " \"ours\" is " + data.ours() +
                  ": its score less the policy's, answer by answer, in points, and its "
                  "cost / the policy's (the median of the quotients of the same turns).";
    table.columns.push_back("ours less it");
  }
  table.columns.insert(table.columns.end(), {"turn, ms", "attention, ms", "density", "KV read", "KV, MiB"});
  if (has_ours) table.columns.insert(table.columns.end(), {"ours / its turn", "ours / its attention"});
  table.columns.push_back("answers");
  const auto median = [&](const std::string& policy, const ReportData::Figure& figure) {
    return Plain(data.PlainMedianOf(policy, EveryTurn, figure), 1, 0);
  };
  const auto quotient = [&](const std::string& policy, const ReportData::Figure& figure) {
    return Interval(data.Ratio(data.ours(), policy, EveryTurn, figure), 1, 2);
  };
  for (const std::string& policy : data.policies()) {
    const Estimate score = data.MeanOf(policy, EveryTurn, ScoreOf);
    std::vector<std::string> row = {policy, Interval(score, 100, 1)};
    if (has_ours) {
      row.push_back(policy == data.ours()
                        ? "-"
                        : SignedInterval(data.index().Difference(data.ours(), policy, EveryTurn, ScoreOf)));
    }
    row.push_back(median(policy, TurnTime));
    row.push_back(median(policy, AttentionTime));
    row.push_back(Plain(data.PlainMeanOf(policy, EveryTurn, Of(&PlayedTurn::prefill_density)), 1, 3));
    row.push_back(Plain(data.PlainMeanOf(policy, EveryTurn, Of(&PlayedTurn::decode_kv_fraction)), 1, 3));
    row.push_back(Plain(data.PlainMeanOf(policy, EveryTurn, Of(&PlayedTurn::kv_bytes)), kMiB, 1));
    if (has_ours) {
      row.push_back(quotient(policy, TurnTime));
      row.push_back(quotient(policy, AttentionTime));
    }
    row.push_back(FormatCount(score.n_values));
    table.rows.push_back(std::move(row));
  }
  report->parts.emplace_back(std::move(table));
}

/// A row's figure against every column's.
void AddPairs(const ReportData& data, const std::string& what, const ReportData::Figure& figure, Report* report) {
  ReportTable table{
      what + ": how many times less the row takes than the column (the median of the quotients of the same turns)",
      "",
      {"policy"},
      {}};
  table.columns.insert(table.columns.end(), data.policies().begin(), data.policies().end());
  int64_t least = INT64_MAX, most = 0;  // turns that a pair of policies shares
  for (const std::string& policy : data.policies()) {
    std::vector<std::string> row = {policy};
    for (const std::string& other : data.policies()) {
      const Estimate ratio = data.PlainRatio(other, policy, EveryTurn, figure);
      const bool says_something = other != policy && ratio.mean > 0;
      row.push_back(says_something ? Plain(ratio, 1, 2) : "-");
      if (!says_something) continue;
      least = std::min(least, ratio.n_values);
      most = std::max(most, ratio.n_values);
    }
    table.rows.push_back(std::move(row));
  }
  if (most == 0) return;
  table.note = "Turns of a pair: " + (least < most ? FormatCount(least) + " to " : "") + FormatCount(most) + ".";
  report->parts.emplace_back(std::move(table));
}

void AddPlot(const ReportData& data, const std::string& title, const std::string& x_title, double factor,
             const std::function<double(const std::string&)>& cost_of, Report* report) {
  ReportPlot plot{title, x_title, "", {}};
  int64_t answers = 0;
  for (const std::string& policy : data.policies()) {
    const Estimate score = data.MeanOf(policy, EveryTurn, ScoreOf);
    const double cost = factor * cost_of(policy);
    if (score.n_values == 0 || cost <= 0) continue;
    answers = std::max(answers, score.n_values);
    plot.points.push_back({policy, cost, 100 * score.mean, 100 * score.low, 100 * score.high, IsOurs(policy)});
  }
  plot.y_title = "mean score x 100 of " + FormatCount(answers) + " answers each, with 95 % interval";
  if (plot.points.size() > 1) report->parts.emplace_back(std::move(plot));
}

/// Against dense's time where there is one: quotients of turns say more than milliseconds.
void AddTimePlot(const ReportData& data, const std::string& title, const std::string& what,
                 const ReportData::Figure& time, Report* report) {
  const std::string of = what + " " + std::to_string(kAnswerTokens) + " tokens, the median";
  const auto cost_of = [&](const std::string& policy) {
    return data.has_dense() ? 100 * data.PlainRatio(policy, kDensePolicy, EveryTurn, time).mean
                            : data.PlainMedianOf(policy, EveryTurn, time).mean;
  };
  AddPlot(data, title, (data.has_dense() ? "per cent of dense's time: " : "milliseconds: ") + of, 1, cost_of, report);
}

}  // namespace

void AddCosts(const ReportData& data, Report* report) {
  AddScoreBesideCost(data, report);
  AddSpeed(data, report);
  AddSpeedByTurn(data, report);
  if (data.policies().size() > 1) {
    AddPairs(data, "Time to the first token", Of(&PlayedTurn::ttft_ms), report);
    AddPairs(data, "Time for each token after it", Of(&PlayedTurn::tpot_ms), report);
    AddPairs(data, "Attention and selection while reading", ReadingAttention, report);
    AddPairs(data, "Attention and selection for each token written", WritingAttention, report);
    AddPairs(data, "KV read / held while writing", Of(&PlayedTurn::decode_kv_fraction), report);
  }
  AddTimePlot(data, "Score against time", "a turn with an answer of", TurnTime, report);
  AddTimePlot(data, "Score against attention's time", "attention and selection of a turn with an answer of",
              AttentionTime, report);
  AddPlot(
      data, "Score against KV read", "per cent of the KV that a token reads", 100,
      [&](const std::string& policy) {
        return data.PlainMeanOf(policy, EveryTurn, Of(&PlayedTurn::decode_kv_fraction)).mean;
      },
      report);
}

}  // namespace loopserve::eval
