// What the parts of a report are made of: stored results by policy and dialogue, and the figures that several parts
// state. Thread rule: immutable after construction.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eval/report.h"
#include "eval/result_index.h"

namespace loopserve::eval {

/// A turn's time is stated for an answer of this many tokens: policies write answers of different lengths.
inline constexpr int kAnswerTokens = 64;
inline constexpr char kDensePolicy[] = "dense";

class ReportData {
 public:
  using Filter = ResultIndex::Filter;
  using Figure = ResultIndex::Figure;
  using NamedFilters = std::vector<std::pair<std::string, Filter>>;

  explicit ReportData(const StoredResults& results);

  const StoredResults& results() const { return results_; }
  const ResultIndex& index() const { return index_; }
  const std::vector<std::string>& policies() const { return index_.policies(); }
  bool has_dense() const;
  /// "loopserve", else another specification of it; empty without one.
  const std::string& ours() const { return ours_; }
  /// In the order of a text.
  const std::vector<std::string>& positions() const { return positions_; }

  NamedFilters TurnFilters() const;
  NamedFilters FieldFilters(std::string PlayedTurn::*field) const;

  Estimate MeanOf(const std::string& policy, const Filter& filter, const Figure& figure) const;
  /// The mean alone, without an interval, which takes time.
  Estimate PlainMeanOf(const std::string& policy, const Filter& filter, const Figure& figure) const;
  Estimate PlainMedianOf(const std::string& policy, const Filter& filter, const Figure& figure) const;
  /// `above`'s figure divided by `below`'s, turn by turn: the median. The two of a turn were measured one shortly after
  /// the other, so that a quotient says more than the two times do, and a median what most turns say.
  Estimate Ratio(const std::string& above, const std::string& below, const Filter& filter, const Figure& figure) const;
  Estimate PlainRatio(const std::string& above, const std::string& below, const Filter& filter,
                      const Figure& figure) const;

 private:
  const StoredResults& results_;
  ResultIndex index_;
  std::string ours_;
  std::vector<std::string> positions_;
};

bool IsOurs(const std::string& policy);

// Filters and figures of turns.
bool EveryTurn(const PlayedTurn& turn);
ReportData::Filter Where(std::string PlayedTurn::*field, std::string value);
ReportData::Filter Both(ReportData::Filter a, ReportData::Filter b);
ReportData::Figure Of(std::optional<double> PlayedTurn::*member);
std::optional<double> ScoreOf(const PlayedTurn& turn);
/// Milliseconds of attention, selection included: while the prompt is read, and for each token that is written.
std::optional<double> ReadingAttention(const PlayedTurn& turn);
std::optional<double> WritingAttention(const PlayedTurn& turn);

/// Milliseconds of a turn with an answer of kAnswerTokens, and those of them that are attention and selection.
std::optional<double> TurnTime(const PlayedTurn& turn);
std::optional<double> AttentionTime(const PlayedTurn& turn);

// Figures as text; "-" without a value, and no interval where all values are of the same texts.
std::string Interval(const Estimate& estimate, double factor, int digits);
std::string Plain(const Estimate& estimate, double factor, int digits);
/// In points, "+1.2 [-0.3, 2.9]".
std::string SignedInterval(const Estimate& estimate);

// The parts, each in a file of its own.
void AddScores(const ReportData& data, Report* report);
void AddCosts(const ReportData& data, Report* report);

}  // namespace loopserve::eval
