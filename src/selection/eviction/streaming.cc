#include "src/selection/eviction/streaming.h"

#include "src/base/check.h"
#include "src/selection/eviction/heaviest_kept.h"

namespace loopserve {

std::vector<int32_t> ChooseStreaming(int64_t n, int64_t budget, int64_t sinks) {
  LS_CHECK(budget >= sinks && sinks >= 0);
  if (n <= budget) return KeepAll(n);
  std::vector<int32_t> kept = KeepAll(sinks);
  for (int64_t t = n - (budget - sinks); t < n; ++t) kept.push_back(static_cast<int32_t>(t));
  return kept;
}

}  // namespace loopserve
