// SnapKV (arXiv 2404.14469): an observation window at the end of the context says which older keys are kept.
// Pure functions.
//
// Candidates of a head are what it still holds, oldest first; a choice is ascending indices of candidates. Weights are
// softmax weights of the window's rows, added up over the rows and averaged over the query heads of the KV head. NaN
// counts as no weight, of equal weights the later key is kept.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// Maximum over the `kernel` (odd) neighbours of each weight, stride 1; what lies outside counts for nothing.
std::vector<float> PoolByMaximum(std::span<const float> weight, int kernel);

/// The newest `window` candidates, and of the older ones the heaviest after pooling among themselves, `budget`
/// together; all where there are not more. budget >= window.
std::vector<int32_t> ChooseSnapKv(std::span<const float> weight, int64_t budget, int64_t window, int kernel);

}  // namespace loopserve
