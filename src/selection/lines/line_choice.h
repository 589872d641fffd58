// Which vertical and slash lines of one attention head a turn computes: the greedy choice of LoopServe (arXiv
// 2507.13681, Algorithm 1), from the exact attention weights of a sample of the turn's rows.
//
// A turn's new rows are the queries at positions first_position..n_keys-1; the row at p attends the keys 0..p.
//   column j (vertical line): the cells (p, j)     of the new rows p >= j
//   slash s  (slash line):    the cells (p, p - s) of the new rows p >= s
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

struct SampledRows {
  std::span<const int64_t> positions;  // ascending, distinct, of new rows
  const float* weights;  // softmax of key t in row r at [r * stride + t]; beyond the row's position never read
  int64_t stride;
};

struct LineProblem {
  int64_t first_position;
  int64_t n_keys;
  SampledRows rows;
};

struct LineChoice {
  std::vector<int32_t> columns;  // ascending
  std::vector<int32_t> slashes;  // ascending
  double
      sampled_coverage;  // share of the sampled weight on the chosen lines, shared cells once; 0 if there is no weight
  int64_t cells;         // (new row, key) cells on the chosen lines, shared cells once
};

// Takes the line with the most sampled weight that no chosen line covers yet, per cell (of all new rows) that no chosen
// line covers yet, until the chosen lines hold `alpha` (above 0, at most 1) of the sampled weight. Among equals columns
// come first, then the lower index. Lines that would add no weight are never taken.
//
// Weights count in steps of 2^-40 and as 1 at most; negative ones and NaN count as 0. Without any weight nothing is
// chosen, and a coverage of 0 says so. At most 4096 rows.
//
// An alpha of 1 takes lines until no sampled weight is left. That is not dense: cells whose weight is 0 in the sample,
// and cells of other rows, may stay out. A caller for whom alpha >= 1 means exact results computes densely and does not
// ask.
//
// Warm lines (such as the choice of the turn before) are tried first, columns, then slashes, in the order given, until
// alpha is reached. One is taken if its weight per cell, of what is not covered yet, is at least the sampled weight per
// causal cell of the new rows: if it does no worse than a line would on attention without structure. What is then
// missing is chosen as without warm lines. Warm indices outside the problem are passed over: the other context may have
// been longer.
LineChoice ChooseLines(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns = {},
                       std::span<const int32_t> warm_slashes = {});

// The two searches that ChooseLines takes, by the number of new rows: the same choice, in different time.
LineChoice ChooseLinesOfFewRows(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns = {},
                                std::span<const int32_t> warm_slashes = {});
LineChoice ChooseLinesOfManyRows(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns = {},
                                 std::span<const int32_t> warm_slashes = {});

// The plain twin of ChooseLines: the same choice, every line looked at anew for every step. For tests.
LineChoice ChooseLinesPlain(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns = {},
                            std::span<const int32_t> warm_slashes = {});

}  // namespace loopserve
