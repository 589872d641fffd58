#include "eval/report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "eval/report_data.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

/// "Within one point" of full attention.
constexpr double kTolerance = 0.01;

/// What a report is about.
struct Compared {
  StoredResults results;  ///< only of dialogues that every policy has finished, so that all figures are of the same
  int64_t left_out = 0;   ///< other dialogues that a policy has finished
};

/// Where no dialogue was finished by every policy, everything stays: pairs of policies may share some.
Compared DialoguesOfAll(const StoredResults& results) {
  std::set<std::string> policies;
  std::map<std::string, size_t> finished;  // by how many policies
  for (const PlayedDialogue& played : results.played) {
    if (!played.error.empty()) continue;
    policies.insert(played.policy);
    ++finished[played.dialogue];
  }
  const auto is_of_all = [&](const auto& dialogue) { return dialogue.second == policies.size(); };
  const auto n_of_all = std::ranges::count_if(finished, is_of_all);
  Compared compared{results, 0};
  std::vector<PlayedDialogue>& played = compared.results.played;
  std::erase_if(played, [&](const PlayedDialogue& one) {
    return !one.error.empty() || (n_of_all > 0 && finished[one.dialogue] < policies.size());
  });
  compared.left_out = n_of_all > 0 ? std::ssize(finished) - n_of_all : 0;
  return compared;
}

/// "dense 2, paper 1"; empty where none failed.
std::string FailuresOf(const StoredResults& results) {
  std::map<std::string, int64_t> failures;
  for (const PlayedDialogue& played : results.played) {
    if (!played.error.empty()) ++failures[played.policy];
  }
  std::string text;
  for (const auto& [policy, n] : failures) text += (text.empty() ? "" : ", ") + policy + " " + FormatCount(n);
  return text;
}

std::string ThreadsOf(const StoredResults& results) {
  std::set<int64_t> threads;
  for (const PlayedDialogue& played : results.played) threads.insert(played.threads);
  std::string text;
  for (const int64_t n : threads) text += (text.empty() ? "" : " or ") + std::to_string(n);
  return text;
}

/// Of each dialogue once, whatever the policies; empty where it is not known.
std::string CutsOf(const StoredResults& results) {
  std::set<std::string> seen;
  int64_t questions = 0, cut = 0;
  double tokens = 0;
  for (const PlayedDialogue& played : results.played) {
    if (!seen.insert(played.dialogue).second) continue;
    for (const PlayedTurn& turn : played.turns) {
      if (!turn.cut_tokens) continue;
      ++questions;
      if (*turn.cut_tokens <= 0) continue;
      ++cut;
      tokens += *turn.cut_tokens;
    }
  }
  if (questions == 0) return "";
  std::string text = FormatCount(cut) + " of " + FormatCount(questions);
  if (cut > 0) text += ", by " + FormatCount(std::llround(tokens / static_cast<double>(cut))) + " tokens on average";
  return text;
}

void AddRun(const StoredResults& all, const ReportData& data, int64_t left_out, Report* report) {
  ReportTable run{"The run", "", {"", ""}, {}};
  for (const auto& [key, value] : data.results().run) run.rows.push_back({key, value});
  int64_t turns = 0;
  for (const PlayedDialogue& played : data.results().played) turns += std::ssize(played.turns);
  if (const std::string threads = ThreadsOf(data.results()); !threads.empty()) run.rows.push_back({"threads", threads});
  run.rows.push_back({"dialogues", FormatCount(data.index().n_dialogues())});
  run.rows.push_back({"answers, of all policies together", FormatCount(turns)});
  if (const std::string cuts = CutsOf(data.results()); !cuts.empty()) {
    run.rows.push_back({"questions about texts that were cut", cuts});
  }
  if (left_out > 0) {
    run.rows.push_back({"dialogues left out, as not every policy has finished them", FormatCount(left_out)});
  }
  if (const std::string failures = FailuresOf(all); !failures.empty()) {
    run.rows.push_back({"dialogues that failed", failures});
  }
  report->parts.emplace_back(std::move(run));
  ReportTable settings{"Policies", "", {"policy", "settings"}, {}};
  for (const auto& [policy, value] : data.results().policies) settings.rows.push_back({policy, value});
  if (!settings.rows.empty()) report->parts.emplace_back(std::move(settings));
}

/// "; it costs 0.90 of its time (attention alone: 0.40 of its), KV read 0.12 against 1.00".
std::string CostOf(const ReportData& data, const std::string& ours, const std::string& policy,
                   const ReportData::Filter& filter) {
  std::string text;
  const Estimate time = data.PlainRatio(ours, policy, filter, TurnTime);
  if (time.n_values > 0) text += ", in " + Plain(time, 1, 2) + " of its time";
  const Estimate attention = data.PlainRatio(ours, policy, filter, AttentionTime);
  if (attention.n_values > 0) text += ", " + Plain(attention, 1, 2) + " of its attention's time";
  const ReportData::Figure kv_read = Of(&PlayedTurn::decode_kv_fraction);
  const Estimate own_read = data.PlainMeanOf(ours, filter, kv_read);
  const Estimate other_read = data.PlainMeanOf(policy, filter, kv_read);
  if (own_read.n_values == 0 || other_read.n_values == 0) return text;
  return text + ", KV read " + Plain(own_read, 1, 3) + " against " + Plain(other_read, 1, 3);
}

/// What an interval says of a difference that ought to be at least `least`.
std::string Judge(const Estimate& difference, double least) {
  constexpr double kRounding = 1e-9;  // of sums of scores
  least -= kRounding;
  if (difference.has_interval() && difference.low >= least) return "Yes";
  if (difference.has_interval() && difference.high < least) return "NO";
  return difference.mean >= least ? "Yes on average" : "NOT on average";
}

std::string Verdict(const ReportData& data, const std::string& ours, const std::string& policy,
                    const std::string& position, const Estimate& difference) {
  const bool is_full = policy == kDensePolicy;
  std::string text = Judge(difference, is_full ? -kTolerance : 0.0);
  text += ", against " + policy + ", question at the " + position + ": " + SignedInterval(difference) + " points";
  if (is_full) text += " (one point below full attention is allowed)";
  return text + CostOf(data, ours, policy, Where(&PlayedTurn::position, position)) + "; " +
         FormatCount(difference.n_values) + " answers on " + FormatCount(difference.n_clusters) + " sets of texts.";
}

/// One sentence for each other method and position: is `ours` at least as good, and at which cost?
void AddConclusionsOn(const ReportData& data, const std::string& ours, Report* report) {
  ReportList list{"Is " + ours + " at least as good?", {}};
  for (const std::string& policy : data.policies()) {
    if (IsOurs(policy)) continue;
    for (const std::string& position : data.positions()) {
      const Estimate difference =
          data.index().Difference(ours, policy, Where(&PlayedTurn::position, position), ScoreOf);
      if (difference.n_values > 0) list.items.push_back(Verdict(data, ours, policy, position, difference));
    }
  }
  if (list.items.empty()) return;
  list.items.insert(
      list.items.begin(),
      "\"On average\": the mean says so, but dialogues drawn anew may say otherwise (95 % interval of each "
      "comparison by itself).");
  report->parts.emplace_back(std::move(list));
}

void AddConclusions(const ReportData& data, Report* report) {
  for (const std::string& policy : data.policies()) {
    if (IsOurs(policy)) AddConclusionsOn(data, policy, report);
  }
}

}  // namespace

Report MakeReport(const StoredResults& results) {
  const Compared compared = DialoguesOfAll(results);
  const ReportData data(compared.results);
  Report report;
  report.title = "Results of multi-turn dialogues";
  AddRun(results, data, compared.left_out, &report);
  AddConclusions(data, &report);
  AddScores(data, &report);
  AddCosts(data, &report);
  return report;
}

}  // namespace loopserve::eval
