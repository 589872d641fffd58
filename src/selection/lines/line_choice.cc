#include "src/selection/lines/line_choice.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numeric>
#include <optional>

#include "src/base/check.h"

namespace loopserve {
namespace {

// The two kinds of line mirror each other: in row p, column j meets slash p - j, and slash s meets column p - s. So one
// rule, "line i meets the other kind's line p - i", serves both, and columns get the numbers [0, n_keys), slashes
// [n_keys, 2 * n_keys), which also is the order among equals.
enum Kind : int { kColumn = 0, kSlash = 1 };

struct Line {
  Kind kind;
  int64_t index;
};

Kind Other(Kind kind) { return kind == kColumn ? kSlash : kColumn; }

int64_t Number(const LineProblem& problem, Line line) {
  return line.kind == kColumn ? line.index : problem.n_keys + line.index;
}

Line Numbered(const LineProblem& problem, int64_t number) {
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

bool Precedes(const Candidate& a, const Candidate& b) {
  return a.ratio != b.ratio ? a.ratio > b.ratio : a.number < b.number;
}

using Chosen = std::array<std::vector<uint8_t>, 2>;  // per kind, per index

Chosen NothingChosen(const LineProblem& problem) {
  return {std::vector<uint8_t>(problem.n_keys), std::vector<uint8_t>(problem.n_keys)};
}

// Weights in steps of 2^-40, at most 1: with them the sum of a line is exact in a double, in whatever order cells are
// added or taken away again, for up to kMaxSampledRows rows. So both searches see the same gains to the last bit, and a
// gain whose every cell is covered is 0.
constexpr size_t kMaxSampledRows = 4096;
constexpr double kRounder = 1.5 * kMaxSampledRows;  // in [4096, 8192), doubles are 2^-40 apart

// In bits, where floats of one sign are ordered as integers are: comparisons of floats keep GCC from vectorizing the
// pass over all weights, which is most of the time of a small choice.
double Usable(float weight) {
  constexpr int32_t kOne = std::bit_cast<int32_t>(1.0f);
  constexpr int32_t kInfinity = std::bit_cast<int32_t>(std::numeric_limits<float>::infinity());
  int32_t bits = std::bit_cast<int32_t>(weight);
  bits &= ~(bits >> 31);                // 0 if negative
  bits &= ~((kInfinity - bits) >> 31);  // 0 if above infinity: NaN
  const int32_t below_one = kOne - bits;
  bits += below_one & (below_one >> 31);  // 1 if above 1
  return (std::bit_cast<float>(bits) + kRounder) - kRounder;
}

double WeightAt(const LineProblem& problem, size_t row, int64_t key) {
  return Usable(problem.rows.weights[static_cast<int64_t>(row) * problem.rows.stride + key]);
}

// The first sampled row that has a cell on a line.
size_t FirstRow(const LineProblem& problem, int64_t index) {
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
std::vector<double> InitialGains(const LineProblem& problem) {
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

int64_t CellsOf(const LineProblem& problem, int64_t index) {
  return problem.n_keys - std::max(index, problem.first_position);
}

// Which lines of the other kind a line meets in the new rows: [from, to).
struct Range {
  int64_t from, to;
};

Range Crossings(const LineProblem& problem, int64_t index) {
  return {std::max<int64_t>(0, problem.first_position - index), problem.n_keys - index};
}

// Follows every gain exactly: a chosen line takes a cell per sampled row from the lines that it crosses there, a
// hundred subtractions. It takes a cell from each line that it crosses in all new rows, too, and those are too many to
// follow: so extra cells are counted only for the few lines that a queue of bounds lets come near the top.
//
// A gain only falls as lines are chosen, but so does the number of extra cells, so a line's ratio may rise and an old
// ratio is no bound. What bounds it: each chosen line takes at most one cell from any other, so while at most k more
// lines are chosen, the ratio stays at or below gain / (extra - k). After kRebuildEvery lines, before the allowance k
// runs out, the queue is built again.
class LazySearch {
 public:
  explicit LazySearch(const LineProblem& problem)
      : problem_(problem), chosen_(NothingChosen(problem)), gains_(InitialGains(problem)) {
    for (std::vector<int32_t>& counts : chosen_below_) counts.resize(problem.n_keys + 1);
  }

  double TotalWeight() const { return std::accumulate(gains_.begin(), gains_.begin() + problem_.n_keys, 0.0); }

  Worth Evaluate(int64_t number) const { return {gains_[number], Extra(Numbered(problem_, number))}; }

  std::optional<int64_t> Best() {
    // With nothing taken yet, and after warm lines, no ratio is known and the floor is 0.
    if (!queue_is_built_) BuildQueue(kFloorShare * last_ratio_);
    std::optional<Candidate> best = BestOfQueue();
    if (left_out_bound_ > 0.0 && (!best || best->ratio <= left_out_bound_)) {
      BuildQueue(0.0);
      best = BestOfQueue();
    }
    if (!best) return std::nullopt;
    last_ratio_ = best->ratio;
    return best->number;
  }

  void Take(int64_t number) {
    const Line line = Numbered(problem_, number);
    const Kind other = Other(line.kind);
    chosen_[line.kind][line.index] = 1;
    double* crossing_gains = gains_.data() + Number(problem_, {other, 0});
    ForSampledCells(problem_, line, [&](int64_t crossing, double weight) { crossing_gains[crossing] -= weight; });
    recent_[n_recent_++] = line;
    if (n_recent_ == kRebuildEvery) {
      CountChosen();
      queue_is_built_ = false;
    }
  }

  const Chosen& chosen() const { return chosen_; }

 private:
  // A longer allowance loosens the bounds of short lines; a shorter one builds the queue of all lines more often.
  static constexpr int kRebuildEvery = 32;
  // A heap of all lines would cost more than all else, and ratios fall slowly: lines below this share of the last one
  // taken seldom have their turn before the next rebuild. With 10k keys this about halves the time of a choice.
  static constexpr double kFloorShare = 0.5;
  static constexpr auto kFirstOnTop = [](const Candidate& a, const Candidate& b) { return Precedes(b, a); };

  double Bound(const Worth& worth) const {
    const int64_t may_be_taken_before_rebuild = kRebuildEvery - 1 - n_recent_;
    return worth.gain / static_cast<double>(std::max<int64_t>(1, worth.extra - may_be_taken_before_rebuild));
  }

  int64_t Extra(Line line) const {
    const Kind other = Other(line.kind);
    const Range crossings = Crossings(problem_, line.index);
    int64_t covered = chosen_below_[other][crossings.to] - chosen_below_[other][crossings.from];
    for (int i = 0; i < n_recent_; ++i) {
      const Line& taken = recent_[i];
      covered += taken.kind == other && taken.index >= crossings.from && taken.index < crossings.to;
    }
    return CellsOf(problem_, line.index) - covered;
  }

  void CountChosen() {
    for (const Kind kind : {kColumn, kSlash}) {
      for (int64_t i = 0; i < problem_.n_keys; ++i) {
        chosen_below_[kind][i + 1] = chosen_below_[kind][i] + chosen_[kind][i];
      }
    }
    n_recent_ = 0;
  }

  // From the lines whose bound is at least `floor`; of the others the highest bound is kept.
  void BuildQueue(double floor) {
    if (n_recent_ > 0) CountChosen();
    queue_.clear();
    left_out_bound_ = 0.0;
    for (const Kind kind : {kColumn, kSlash}) {
      for (int64_t index = 0; index < problem_.n_keys; ++index) {
        const int64_t number = Number(problem_, {kind, index});
        if (gains_[number] <= 0.0 || chosen_[kind][index]) continue;
        const double bound = Bound({gains_[number], Extra({kind, index})});
        if (bound >= floor) {
          queue_.push_back({bound, number});
        } else {
          left_out_bound_ = std::max(left_out_bound_, bound);
        }
      }
    }
    std::ranges::make_heap(queue_, kFirstOnTop);
    queue_is_built_ = true;
  }

  // Evaluates lines from the top until no bound that is left precedes the best of them.
  std::optional<Candidate> BestOfQueue() {
    std::optional<Candidate> best;
    evaluated_.clear();
    while (!queue_.empty() && (!best || Precedes(queue_.front(), *best))) {
      std::ranges::pop_heap(queue_, kFirstOnTop);
      const int64_t number = queue_.back().number;
      queue_.pop_back();
      const Worth worth = Evaluate(number);
      if (worth.gain <= 0.0) continue;  // for good
      evaluated_.push_back({Bound(worth), number});
      const Candidate candidate = {worth.Ratio(), number};
      if (!best || Precedes(candidate, *best)) best = candidate;
    }
    for (const Candidate& candidate : evaluated_) {
      if (candidate.number == best->number) continue;
      queue_.push_back(candidate);
      std::ranges::push_heap(queue_, kFirstOnTop);
    }
    return best;
  }

  const LineProblem& problem_;
  Chosen chosen_;
  std::vector<double> gains_;  // by line number, exact for lines that are not chosen
  // Chosen lines below an index, per kind, as of the last count, and the lines taken since.
  std::array<std::vector<int32_t>, 2> chosen_below_;
  std::array<Line, kRebuildEvery> recent_;
  int n_recent_ = 0;
  std::vector<Candidate> queue_;      // a heap of bounds
  std::vector<Candidate> evaluated_;  // scratch of Best
  bool queue_is_built_ = false;
  double left_out_bound_ = 0.0;  // of the lines that are not in the queue, 0 if there are none
  double last_ratio_ = 0.0;
};

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
  CheckProblem(problem, alpha);
  return Choose<LazySearch>(problem, alpha, warm_columns, warm_slashes);
}

LineChoice ChooseLinesPlain(const LineProblem& problem, double alpha, std::span<const int32_t> warm_columns,
                            std::span<const int32_t> warm_slashes) {
  CheckProblem(problem, alpha);
  return Choose<PlainSearch>(problem, alpha, warm_columns, warm_slashes);
}

}  // namespace loopserve
