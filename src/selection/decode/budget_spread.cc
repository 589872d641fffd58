#include "src/selection/decode/budget_spread.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace loopserve {

WeightHistogram::WeightHistogram(std::span<const float> weight) {
  double total = 0;
  for (const float x : weight) total += x > 0 ? x : 0;
  for (const float x : weight) {
    const double eighths = x > 0 && total > 0 ? -8 * std::log2(x / total) : kBins;
    const int bin = eighths < kBins - 1 ? std::max(0, static_cast<int>(eighths)) : kBins - 1;
    ++counts_[static_cast<size_t>(bin)];
  }
  std::partial_sum(counts_.begin(), counts_.end(), counts_.begin());
}

std::vector<int64_t> SpreadBudgets(std::span<const WeightHistogram> heads, int64_t mean, int64_t low, int64_t high) {
  const int64_t wanted = static_cast<int64_t>(heads.size()) * mean;
  const auto at = [&](size_t head, int bin) {
    return std::clamp(bin < 0 ? int64_t{0} : heads[head].CountTo(bin), low, high);
  };
  const auto total = [&](int bin) {
    int64_t sum = 0;
    for (size_t head = 0; head < heads.size(); ++head) sum += at(head, bin);
    return sum;
  };
  // The lightest bin that still fits as a whole; -1 where not even the first does.
  int bin = -1;
  while (bin + 1 < WeightHistogram::kBins && total(bin + 1) <= wanted) ++bin;
  std::vector<int64_t> budgets;
  for (size_t head = 0; head < heads.size(); ++head) budgets.push_back(at(head, bin));
  if (bin + 1 == WeightHistogram::kBins) return budgets;
  // What is left goes to the heads by their keys in the next bin.
  const int64_t left = wanted - total(bin);
  const int64_t next = total(bin + 1) - total(bin);
  for (size_t head = 0; next > 0 && left > 0 && head < heads.size(); ++head) {
    budgets[head] += (at(head, bin + 1) - at(head, bin)) * left / next;
  }
  return budgets;
}

}  // namespace loopserve
