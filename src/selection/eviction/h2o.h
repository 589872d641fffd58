// H2O (arXiv 2306.14048): heavy hitters, by all attention that a key has had, and the newest keys. Pure functions;
// candidates and choices are those of snapkv.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// The newest candidates, half of the budget (rounded up), and the heaviest of the others; all where there are not more
/// than `budget`. sums: the attention's column sums, over rows and the query heads of the KV head.
std::vector<int32_t> ChooseH2O(std::span<const float> sums, int64_t budget);

}  // namespace loopserve
