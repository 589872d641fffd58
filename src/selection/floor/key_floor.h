// The floor that every choice of keys stands on: the fewest keys that hold a share of one row's attention weight. No
// method can compute less for that row and hold as much; knowing them takes the row's exact weights. Pure function.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// The fewest keys that hold at least `alpha` (above 0, at most 1) of a row's weights (f32, not negative, by key),
/// heaviest first, the lower index among equals. All keys, ascending, if the weights are not finite or all zero.
void FewestKeys(std::span<const float> weights, double alpha, std::vector<int32_t>* keys);

}  // namespace loopserve
