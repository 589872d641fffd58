// What the eviction methods that keep by weight have in common. Pure functions; as in snapkv.h a choice is ascending
// indices of candidates.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// Candidates [0, n).
std::vector<int32_t> KeepAll(int64_t n);

/// Of candidates [0, older.size() + n_newest) all of the last n_newest, and of the others, whose weights are `older`,
/// the heaviest: `budget` together, or all if there are not more. budget >= n_newest. NaN counts as no weight; of equal
/// weights the later is kept.
std::vector<int32_t> KeepHeaviestAndNewest(std::span<const float> older, int64_t budget, int64_t n_newest);

}  // namespace loopserve
