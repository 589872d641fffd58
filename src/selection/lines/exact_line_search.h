// The search for lines in turns of few rows. Internal to this folder. Thread rule: one owner.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

#include "src/selection/lines/line_search.h"

namespace loopserve::line_internal {

// Follows gains and extra cells of every line exactly. A chosen line takes a cell in each new row from a line of the
// other kind: as many updates as there are new rows, which is why this is for few of them. Where a line has few cells,
// the bounds of LazySearch say next to nothing: a choice for 57 rows on 16,000 keys takes it hundreds of times as long.
class ExactSearch {
 public:
  explicit ExactSearch(const LineProblem& problem)
      : problem_(problem), chosen_(NothingChosen(problem)), gains_(InitialGains(problem)) {
    extra_.reserve(gains_.size());
    for (int kind = 0; kind < 2; ++kind) {
      for (int64_t index = 0; index < problem.n_keys; ++index) extra_.push_back(CellsOf(problem, index));
    }
    for (size_t number = 0; number < gains_.size(); ++number) {
      if (gains_[number] > 0.0) queue_.push_back({RatioOf(number), static_cast<int64_t>(number)});
    }
    std::ranges::make_heap(queue_, kFirstOnTop);
  }

  double TotalWeight() const { return std::accumulate(gains_.begin(), gains_.begin() + problem_.n_keys, 0.0); }

  Worth Evaluate(int64_t number) const {
    const auto i = static_cast<size_t>(number);
    return {gains_[i], extra_[i]};
  }

  // The queue holds each line with a ratio that is at least the line's own: one that rises is put in anew, one that has
  // fallen when it comes to the top.
  std::optional<int64_t> Best() {
    while (!queue_.empty()) {
      const Candidate top = queue_.front();
      const auto number = static_cast<size_t>(top.number);
      const bool is_left = !IsChosen(top.number) && gains_[number] > 0.0;
      if (is_left && top.ratio == RatioOf(number)) return top.number;
      std::ranges::pop_heap(queue_, kFirstOnTop);
      queue_.pop_back();
      if (is_left && top.ratio > RatioOf(number)) Push(number);
    }
    return std::nullopt;
  }

  void Take(int64_t number) {
    const Line line = Numbered(problem_, number);
    const int64_t first_crossing = Number(problem_, {Other(line.kind), 0});
    chosen_[line.kind][static_cast<size_t>(line.index)] = 1;
    size_t row = FirstRow(problem_, line.index);
    const std::span<const int64_t> sampled = problem_.rows.positions;
    for (int64_t p = std::max(line.index, problem_.first_position); p < problem_.n_keys; ++p) {
      const int64_t crossing = p - line.index;
      const auto other = static_cast<size_t>(first_crossing + crossing);
      const bool is_sampled = row < sampled.size() && sampled[row] == p;
      const bool is_left = !IsChosen(static_cast<int64_t>(other)) && gains_[other] > 0.0;
      const double before = is_left ? RatioOf(other) : 0.0;
      --extra_[other];
      if (is_sampled) gains_[other] -= WeightAt(problem_, row++, line.kind == kColumn ? line.index : crossing);
      if (is_left && gains_[other] > 0.0 && RatioOf(other) > before) Push(other);
    }
  }

  const Chosen& chosen() const { return chosen_; }

 private:
  bool IsChosen(int64_t number) const {
    const Line line = Numbered(problem_, number);
    return chosen_[line.kind][static_cast<size_t>(line.index)] != 0;
  }
  double RatioOf(size_t number) const { return Worth{gains_[number], extra_[number]}.Ratio(); }
  void Push(size_t number) {
    queue_.push_back({RatioOf(number), static_cast<int64_t>(number)});
    std::ranges::push_heap(queue_, kFirstOnTop);
  }

  const LineProblem& problem_;
  Chosen chosen_;
  std::vector<double> gains_;   // by line number, exact for lines that are not chosen
  std::vector<int64_t> extra_;  // the same, cells that no chosen line covers
  std::vector<Candidate> queue_;
};

}  // namespace loopserve::line_internal
