#include "src/selection/eviction/snapkv.h"

#include <algorithm>

#include "src/base/check.h"
#include "src/selection/eviction/heaviest_kept.h"

namespace loopserve {

std::vector<float> PoolByMaximum(std::span<const float> weight, int kernel) {
  LS_CHECK(kernel >= 1 && kernel % 2 == 1);
  const auto n = static_cast<int64_t>(weight.size());
  const int64_t reach = kernel / 2;
  std::vector<float> pooled(weight.size());
  for (int64_t t = 0; t < n; ++t) {
    float largest = 0;
    for (int64_t s = std::max<int64_t>(0, t - reach); s <= std::min(n - 1, t + reach); ++s) {
      if (weight[static_cast<size_t>(s)] > largest) largest = weight[static_cast<size_t>(s)];
    }
    pooled[static_cast<size_t>(t)] = largest;
  }
  return pooled;
}

std::vector<int32_t> ChooseSnapKv(std::span<const float> weight, int64_t budget, int64_t window, int kernel) {
  LS_CHECK(budget >= window && window >= 0);
  const auto n = static_cast<int64_t>(weight.size());
  const int64_t n_older = std::max<int64_t>(0, n - window);
  return KeepHeaviestAndNewest(PoolByMaximum(weight.first(static_cast<size_t>(n_older)), kernel), budget, n - n_older);
}

}  // namespace loopserve
