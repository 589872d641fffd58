#include "src/selection/eviction/h2o.h"

#include <algorithm>

#include "src/selection/eviction/heaviest_kept.h"

namespace loopserve {

std::vector<int32_t> ChooseH2O(std::span<const float> sums, int64_t budget) {
  const auto n = static_cast<int64_t>(sums.size());
  const int64_t n_newest = std::min(n, budget - budget / 2);
  return KeepHeaviestAndNewest(sums.first(static_cast<size_t>(n - n_newest)), budget, n_newest);
}

}  // namespace loopserve
