// The report's quality: scores, differences to full attention, fidelity.
#include <algorithm>

#include "eval/report_data.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

void AddMean(const Estimate& all, std::vector<std::string>* row) {
  row->push_back(Interval(all, 100, 1));
  row->push_back(FormatCount(all.n_values));
  row->push_back(FormatCount(all.n_clusters));
}

/// "12", or "8 to 12" where policies have not played the same.
std::string CountOf(const ReportData& data, const ReportData::Filter& filter) {
  int64_t least = INT64_MAX, most = 0;
  for (const std::string& policy : data.policies()) {
    const int64_t n = data.PlainMeanOf(policy, filter, ScoreOf).n_values;
    least = std::min(least, n);
    most = std::max(most, n);
  }
  return least == most ? FormatCount(most) : FormatCount(least) + " to " + FormatCount(most);
}

/// The last row of a table: how many answers of each policy stand behind the figures of a column.
void AddAnswers(const ReportData& data, const ReportData::NamedFilters& filters, const ReportData::Filter& all,
                ReportTable* table) {
  std::vector<std::string> row = {"answers"};
  for (const auto& [name, filter] : filters) row.push_back(CountOf(data, Both(all, filter)));
  row.push_back(CountOf(data, all));
  row.resize(table->columns.size());
  table->rows.push_back(std::move(row));
}

void AddScoresAt(const ReportData& data, const std::string& position, Report* report) {
  ReportTable table{"Scores, question at the " + position,
                    "Mean score times 100 by dataset, and of all answers with its 95 % interval (dialogues drawn "
                    "anew, those that share a text together, " +
                        FormatCount(kResamples) +
                        " times). The last row says how many answers of each policy stand behind a mean.",
                    {"policy"},
                    {}};
  const ReportData::Filter at = Where(&PlayedTurn::position, position);
  const ReportData::NamedFilters datasets = data.FieldFilters(&PlayedTurn::dataset);
  for (const auto& [name, filter] : datasets) table.columns.push_back(name);
  table.columns.insert(table.columns.end(), {"all", "answers", "sets of texts"});
  for (const std::string& policy : data.policies()) {
    std::vector<std::string> row = {policy};
    for (const auto& [name, filter] : datasets) {
      row.push_back(Plain(data.PlainMeanOf(policy, Both(at, filter), ScoreOf), 100, 1));
    }
    AddMean(data.MeanOf(policy, at, ScoreOf), &row);
    table.rows.push_back(std::move(row));
  }
  AddAnswers(data, datasets, at, &table);
  report->parts.emplace_back(std::move(table));
}

void AddBy(const ReportData& data, const std::string& title, const ReportData::NamedFilters& filters, Report* report) {
  if (filters.empty()) return;
  ReportTable table{title, "Mean score times 100 with its 95 % interval.", {"policy"}, {}};
  for (const auto& [name, filter] : filters) table.columns.push_back(name);
  table.columns.insert(table.columns.end(), {"all", "answers", "sets of texts"});
  for (const std::string& policy : data.policies()) {
    std::vector<std::string> row = {policy};
    for (const auto& [name, filter] : filters) row.push_back(Interval(data.MeanOf(policy, filter, ScoreOf), 100, 1));
    AddMean(data.MeanOf(policy, EveryTurn, ScoreOf), &row);
    table.rows.push_back(std::move(row));
  }
  AddAnswers(data, filters, EveryTurn, &table);
  report->parts.emplace_back(std::move(table));
}

void AddDifferences(const ReportData& data, const std::string& by, const ReportData::NamedFilters& filters,
                    Report* report) {
  if (!data.has_dense() || filters.empty()) return;
  ReportTable table{"Differences to full attention" + by,
                    "Score of the policy less score of dense, answer by answer, in points, with the 95 % interval: "
                    "an interval without 0 is a difference.",
                    {"policy"},
                    {}};
  for (const auto& [name, filter] : filters) table.columns.push_back(name);
  table.columns.insert(table.columns.end(), {"all", "answers"});
  for (const std::string& policy : data.policies()) {
    if (policy == kDensePolicy) continue;
    std::vector<std::string> row = {policy};
    for (const auto& [name, filter] : filters) {
      row.push_back(SignedInterval(data.index().Difference(policy, kDensePolicy, filter, ScoreOf)));
    }
    const Estimate all = data.index().Difference(policy, kDensePolicy, EveryTurn, ScoreOf);
    row.push_back(SignedInterval(all));
    row.push_back(FormatCount(all.n_values));
    table.rows.push_back(std::move(row));
  }
  if (table.rows.empty()) return;
  AddAnswers(data, filters, EveryTurn, &table);
  report->parts.emplace_back(std::move(table));
}

void AddFidelity(const ReportData& data, Report* report) {
  ReportTable table{"Fidelity to full attention",
                    "Over dense's own answers, and over the reference answers, both led through the dense dialogue: "
                    "mean KL to dense in nats, share of tokens with the same likeliest one, NLL of the text. With 95 % "
                    "intervals.",
                    {"policy", "KL", "top-1 agreement, %", "NLL", "answers", "KL, references",
                     "top-1 agreement, %, references", "NLL of references", "references"},
                    {}};
  bool any = false;
  for (const std::string& policy : data.policies()) {
    const auto mean = [&](std::optional<double> PlayedTurn::*member, double factor, int digits) {
      return Interval(data.MeanOf(policy, EveryTurn, Of(member)), factor, digits);
    };
    const auto count = [&](std::optional<double> PlayedTurn::*member) {
      return data.PlainMeanOf(policy, EveryTurn, Of(member)).n_values;
    };
    const int64_t answers = count(&PlayedTurn::kl), references = count(&PlayedTurn::reference_nll);
    any |= answers > 0 || references > 0;
    table.rows.push_back({policy, mean(&PlayedTurn::kl, 1, 4), mean(&PlayedTurn::top1_agreement, 100, 2),
                          mean(&PlayedTurn::answer_nll, 1, 4), FormatCount(answers),
                          mean(&PlayedTurn::reference_kl, 1, 4), mean(&PlayedTurn::reference_top1_agreement, 100, 2),
                          mean(&PlayedTurn::reference_nll, 1, 4), FormatCount(references)});
  }
  if (any) report->parts.emplace_back(std::move(table));
}

}  // namespace

void AddScores(const ReportData& data, Report* report) {
  ReportData::NamedFilters positions;
  for (const std::string& position : data.positions()) {
    AddScoresAt(data, position, report);
    positions.emplace_back(position, Where(&PlayedTurn::position, position));
  }
  AddBy(data, "Scores by dataset", data.FieldFilters(&PlayedTurn::dataset), report);
  AddBy(data, "Scores by turn", data.TurnFilters(), report);
  AddBy(data, "Scores by what the question depends on", data.FieldFilters(&PlayedTurn::dependency), report);
  AddDifferences(data, "", positions, report);
  AddDifferences(data, ", by dataset", data.FieldFilters(&PlayedTurn::dataset), report);
  AddDifferences(data, ", by turn", data.TurnFilters(), report);
  AddFidelity(data, report);
}

}  // namespace loopserve::eval
