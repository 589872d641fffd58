// What the searches for lines share: lines and their numbers, weights, cells. Internal to this folder.
// Thread rule: pure functions.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "src/selection/lines/line_choice.h"

namespace loopserve::line_internal {

// The two kinds of line mirror each other: in row p, column j meets slash p - j, and slash s meets column p - s. So one
// rule, "line i meets the other kind's line p - i", serves both, and columns get the numbers [0, n_keys), slashes
// [n_keys, 2 * n_keys), which also is the order among equals.
enum Kind : int { kColumn = 0, kSlash = 1 };

struct Line {
  Kind kind;
  int64_t index;
};

inline Kind Other(Kind kind) { return kind == kColumn ? kSlash : kColumn; }

inline int64_t Number(const LineProblem& problem, Line line) {
  return line.kind == kColumn ? line.index : problem.n_keys + line.index;
}

inline Line Numbered(const LineProblem& problem, int64_t number) {
  return number < problem.n_keys ? Line{kColumn, number} : Line{kSlash, number - problem.n_keys};
}

// Of a line, what no chosen line covers yet.
struct Worth {
  double gain;    // sampled weight
  int64_t extra;  // cells, of all new rows
  double Ratio() const { return gain / static_cast<double>(extra); }
};

struct Candidate {
  double ratio;
  int64_t number;
};

inline bool Precedes(const Candidate& a, const Candidate& b) {
  return a.ratio != b.ratio ? a.ratio > b.ratio : a.number < b.number;
}

// For heaps of candidates.
inline constexpr auto kFirstOnTop = [](const Candidate& a, const Candidate& b) { return Precedes(b, a); };

using Chosen = std::array<std::vector<uint8_t>, 2>;  // per kind, per index

inline Chosen NothingChosen(const LineProblem& problem) {
  return {std::vector<uint8_t>(problem.n_keys), std::vector<uint8_t>(problem.n_keys)};
}

// Weights in steps of 2^-40, at most 1: with them the sum of a line is exact in a double, in whatever order cells are
// added or taken away again, for up to kMaxSampledRows rows. So both searches see the same gains to the last bit, and a
// gain whose every cell is covered is 0.
inline constexpr size_t kMaxSampledRows = 4096;
inline constexpr double kRounder = 1.5 * kMaxSampledRows;  // in [4096, 8192), doubles are 2^-40 apart

// In bits, where floats of one sign are ordered as integers are: comparisons of floats keep GCC from vectorizing the
// pass over all weights, which is most of the time of a small choice.
inline double Usable(float weight) {
  constexpr int32_t kOne = std::bit_cast<int32_t>(1.0f);
  constexpr int32_t kInfinity = std::bit_cast<int32_t>(std::numeric_limits<float>::infinity());
  int32_t bits = std::bit_cast<int32_t>(weight);
  bits &= ~(bits >> 31);                // 0 if negative
  bits &= ~((kInfinity - bits) >> 31);  // 0 if above infinity: NaN
  const int32_t below_one = kOne - bits;
  bits += below_one & (below_one >> 31);  // 1 if above 1
  return (std::bit_cast<float>(bits) + kRounder) - kRounder;
}

inline double WeightAt(const LineProblem& problem, size_t row, int64_t key) {
  return Usable(problem.rows.weights[static_cast<int64_t>(row) * problem.rows.stride + key]);
}

// The first sampled row that has a cell on a line.
inline size_t FirstRow(const LineProblem& problem, int64_t index) {
  const std::span<const int64_t> positions = problem.rows.positions;
  return std::ranges::lower_bound(positions, index) - positions.begin();
}

// Calls visit(the other kind's line that crosses there, weight) for each sampled cell of a line.
template <typename Visit>
void ForSampledCells(const LineProblem& problem, Line line, Visit visit) {
  for (size_t row = FirstRow(problem, line.index); row < problem.rows.positions.size(); ++row) {
    const int64_t crossing = problem.rows.positions[row] - line.index;
    visit(crossing, WeightAt(problem, row, line.kind == kColumn ? line.index : crossing));
  }
}

// Every line's gain while nothing is chosen, by line number, in one pass over the weights.
inline std::vector<double> InitialGains(const LineProblem& problem) {
  const int64_t n_keys = problem.n_keys;
  std::vector<double> gains(2 * n_keys);
  std::vector<double> slashes_reversed(n_keys);  // slash s at n_keys - 1 - s: a row adds to it in the order of its keys
  for (size_t row = 0; row < problem.rows.positions.size(); ++row) {
    const int64_t position = problem.rows.positions[row];
    const float* __restrict weights = problem.rows.weights + static_cast<int64_t>(row) * problem.rows.stride;
    double* __restrict columns = gains.data();
    double* __restrict slashes = slashes_reversed.data() + (n_keys - 1 - position);
    for (int64_t key = 0; key <= position; ++key) {
      const double weight = Usable(weights[key]);
      columns[key] += weight;
      slashes[key] += weight;
    }
  }
  std::ranges::reverse_copy(slashes_reversed, gains.begin() + n_keys);
  return gains;
}

inline int64_t CellsOf(const LineProblem& problem, int64_t index) {
  return problem.n_keys - std::max(index, problem.first_position);
}

// Which lines of the other kind a line meets in the new rows: [from, to).
struct Range {
  int64_t from, to;
};

inline Range Crossings(const LineProblem& problem, int64_t index) {
  return {std::max<int64_t>(0, problem.first_position - index), problem.n_keys - index};
}

}  // namespace loopserve::line_internal
