#include "src/selection/lines/line_choice.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "src/base/check.h"
#include "src/selection/lines/exact_line_search.h"
#include "src/selection/lines/lazy_line_search.h"
#include "src/selection/lines/line_search.h"

namespace loopserve {
namespace {

using namespace line_internal;  // NOLINT(google-build-using-namespace): this file is its outside

// New rows up to which all that changes with a line is followed. Of made-up weights, power laws over columns, 128 rows
// sampled, alpha 0.955, 16,000 keys: 57 new rows take 0.03 s so and 9.2 s lazily, 256 0.5 and 1.2, 512 1.5 and 0.45.
constexpr int64_t kFewRows = 256;

// Looks at every line, cell by cell, for every step.
class PlainSearch {
 public:
  explicit PlainSearch(const LineProblem& problem) : problem_(problem), chosen_(NothingChosen(problem)) {}

  double TotalWeight() const {
    double total = 0.0;
    for (int64_t key = 0; key < problem_.n_keys; ++key) total += Evaluate(key).gain;
    return total;
  }

  Worth Evaluate(int64_t number) const {
    const Line line = Numbered(problem_, number);
    int64_t extra = 0;
    for (int64_t p = std::max(line.index, problem_.first_position); p < problem_.n_keys; ++p) {
      extra += !chosen_[Other(line.kind)][p - line.index];
    }
    double gain = 0.0;
    ForSampledCells(problem_, line, [&](int64_t crossing, double weight) {
      if (!chosen_[Other(line.kind)][crossing]) gain += weight;
    });
    return {gain, extra};
  }

  std::optional<int64_t> Best() const {
    std::optional<Candidate> best;
    for (int64_t number = 0; number < 2 * problem_.n_keys; ++number) {
      const Line line = Numbered(problem_, number);
      if (chosen_[line.kind][line.index]) continue;
      const Worth worth = Evaluate(number);
      if (worth.gain <= 0.0) continue;
      const Candidate candidate = {worth.Ratio(), number};
      if (!best || Precedes(candidate, *best)) best = candidate;
    }
    return best ? std::optional(best->number) : std::nullopt;
  }

  void Take(int64_t number) {
    const Line line = Numbered(problem_, number);
    chosen_[line.kind][line.index] = 1;
  }

  const Chosen& chosen() const { return chosen_; }

 private:
  const LineProblem& problem_;
  Chosen chosen_;
};

double MeanWeightPerCell(const LineProblem& problem, double total_weight) {
  const double n = static_cast<double>(problem.n_keys);
  const double first = static_cast<double>(problem.first_position);
  return total_weight / ((n * (n + 1) - first * (first + 1)) / 2);  // the new rows have first + 1 .. n cells
}

std::vector<int32_t> Indices(const std::vector<uint8_t>& chosen) {
  std::vector<int32_t> indices;
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i]) indices.push_back(static_cast<int32_t>(i));
  }
  return indices;
}

// What both searches share: when lines are tried and taken, and the sums over them.
template <typename Search>
LineChoice Choose(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns,
                  std::span<const int32_t> warm_slashes) {
  Search search(problem);
  const double total = search.TotalWeight();
  double covered = 0.0;
  int64_t cells = 0;
  const auto is_reached = [&] { return covered >= alpha * total; };  // exact sums: fit for an alpha of 1, too
  const auto take = [&](int64_t number, const Worth& worth) {
    covered += worth.gain;
    cells += worth.extra;
    search.Take(number);
  };

  const double mean = MeanWeightPerCell(problem, total);
  const auto try_warm = [&](Kind kind, std::span<const int32_t> indices) {
    for (const int32_t index : indices) {
      if (is_reached()) return;
      if (index < 0 || index >= problem.n_keys || search.chosen()[kind][index]) continue;
      const int64_t number = Number(problem, {kind, index});
      const Worth worth = search.Evaluate(number);
      if (worth.gain > 0.0 && worth.Ratio() >= mean) take(number, worth);
    }
  };
  try_warm(kColumn, warm_columns);
  try_warm(kSlash, warm_slashes);

  while (!is_reached()) {
    const std::optional<int64_t> best = search.Best();
    if (!best) break;
    take(*best, search.Evaluate(*best));
  }
  return {.columns = Indices(search.chosen()[kColumn]),
          .slashes = Indices(search.chosen()[kSlash]),
          .sampled_coverage = total > 0.0 ? covered / total : 0.0,
          .cells = cells};
}

void CheckProblem(const LineProblem& problem, double alpha) {
  LS_CHECK(alpha > 0.0 && alpha <= 1.0);
  LS_CHECK(problem.first_position >= 0 && problem.first_position < problem.n_keys);
  LS_CHECK(problem.rows.positions.size() <= kMaxSampledRows);
  LS_CHECK(problem.n_keys <= std::numeric_limits<int32_t>::max());
  int64_t previous = problem.first_position - 1;
  for (const int64_t position : problem.rows.positions) {
    LS_CHECK(position > previous && position < problem.n_keys && position < problem.rows.stride);
    previous = position;
  }
}

}  // namespace

LineChoice ChooseLines(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns,
                       std::span<const int32_t> warm_slashes) {
  return problem.n_keys - problem.first_position <= kFewRows
             ? ChooseLinesOfFewRows(problem, alpha, warm_columns, warm_slashes)
             : ChooseLinesOfManyRows(problem, alpha, warm_columns, warm_slashes);
}

LineChoice ChooseLinesOfFewRows(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns,
                                std::span<const int32_t> warm_slashes) {
  CheckProblem(problem, alpha);
  return Choose<ExactSearch>(problem, alpha, warm_columns, warm_slashes);
}

LineChoice ChooseLinesOfManyRows(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns,
                                 std::span<const int32_t> warm_slashes) {
  CheckProblem(problem, alpha);
  return Choose<LazySearch>(problem, alpha, warm_columns, warm_slashes);
}

LineChoice ChooseLinesPlain(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns,
                            std::span<const int32_t> warm_slashes) {
  CheckProblem(problem, alpha);
  return Choose<PlainSearch>(problem, alpha, warm_columns, warm_slashes);
}

}  // namespace loopserve
