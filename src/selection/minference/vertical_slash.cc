#include "src/selection/minference/vertical_slash.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "src/selection/lines/line_sums.h"

namespace loopserve {
namespace {

/// The `count` heaviest lines, ascending; the first `forced` are heavier than any.
std::vector<int32_t> Heaviest(std::vector<double> weights, int64_t forced, int64_t count) {
  const auto n = static_cast<int64_t>(weights.size());
  std::fill_n(weights.begin(), std::min(forced, n), std::numeric_limits<double>::infinity());
  std::vector<int32_t> lines(weights.size());
  std::iota(lines.begin(), lines.end(), 0);
  if (count >= n) return lines;
  std::nth_element(lines.begin(), lines.begin() + count, lines.end(), [&](int32_t a, int32_t b) {
    const double x = weights[static_cast<size_t>(a)];
    const double y = weights[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  lines.resize(static_cast<size_t>(count));
  std::ranges::sort(lines);
  return lines;
}

/// Cells of new rows on the lines, shared cells once.
int64_t CountCells(const LineProblem& problem, const VerticalSlash& lines) {
  const int64_t n = problem.n_keys;
  const auto rows_from = [&](int64_t line) { return n - std::max(line, problem.first_position); };
  int64_t cells = 0;
  std::vector<int32_t> columns_below(static_cast<size_t>(n) + 1);  // columns with an index below i
  for (const int32_t column : lines.columns) {
    cells += rows_from(column);
    columns_below[static_cast<size_t>(column) + 1] = 1;
  }
  std::partial_sum(columns_below.begin(), columns_below.end(), columns_below.begin());
  for (const int32_t slash : lines.slashes) {
    // The slash meets column j in row j + slash.
    const int64_t first = std::max<int64_t>(0, problem.first_position - slash);
    const int64_t last = n - slash;
    cells += rows_from(slash) - (columns_below[static_cast<size_t>(last)] - columns_below[static_cast<size_t>(first)]);
  }
  return cells;
}

}  // namespace

VerticalSlash ChooseVerticalSlash(const LineProblem& problem, int64_t n_columns, int64_t n_slashes) {
  std::vector<double> columns, slashes;
  SumLines(problem.rows, problem.n_keys, &columns, &slashes);
  VerticalSlash lines;
  lines.slashes = Heaviest(std::move(slashes), kForcedSlashes, std::max(n_slashes, kLeastSlashes));
  if (static_cast<int64_t>(lines.slashes.size()) < problem.n_keys) {
    lines.columns = Heaviest(std::move(columns), kForcedColumns, std::max(n_columns, kLeastColumns));
  }
  lines.cells = CountCells(problem, lines);
  return lines;
}

}  // namespace loopserve
