// The search for lines in turns of many rows. Internal to this folder. Thread rule: one owner.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

#include "src/selection/lines/line_search.h"

namespace loopserve::line_internal {

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

}  // namespace loopserve::line_internal
