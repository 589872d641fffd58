// Which keys a decode step reads: the heaviest by the attention of the newest queries (LoopServe, arXiv 2507.13681,
// Algorithm 2). Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// The `budget` heaviest of keys [0, weight.size()), those from `first_kept` on always among them (they count towards
/// the budget). Marks them in `chosen` [weight.size()]: 1 or 0. Equal weights: the later key first. NaN counts as no
/// weight. All keys if there are not more than `budget`. `scratch` is reused memory.
void ChooseKeys(std::span<const float> weight, int64_t first_kept, int64_t budget, std::vector<float>* scratch,
                std::vector<uint8_t>* chosen);

}  // namespace loopserve
