#include "src/selection/eviction/heaviest_kept.h"

#include <numeric>

#include "src/base/check.h"
#include "src/selection/decode/key_choice.h"

namespace loopserve {

std::vector<int32_t> KeepAll(int64_t n) {
  std::vector<int32_t> kept(static_cast<size_t>(n));
  std::iota(kept.begin(), kept.end(), 0);
  return kept;
}

std::vector<int32_t> KeepHeaviestAndNewest(std::span<const float> older, int64_t budget, int64_t n_newest) {
  LS_CHECK(budget >= n_newest && n_newest >= 0);
  const auto n_older = static_cast<int64_t>(older.size());
  if (n_older + n_newest <= budget) return KeepAll(n_older + n_newest);
  std::vector<float> scratch;
  std::vector<uint8_t> chosen;
  ChooseKeys(older, n_older, budget - n_newest, &scratch, &chosen);
  std::vector<int32_t> kept;
  kept.reserve(static_cast<size_t>(budget));
  for (int64_t t = 0; t < n_older; ++t) {
    if (chosen[static_cast<size_t>(t)] != 0) kept.push_back(static_cast<int32_t>(t));
  }
  for (int64_t t = n_older; t < n_older + n_newest; ++t) kept.push_back(static_cast<int32_t>(t));
  return kept;
}

}  // namespace loopserve
