// AdaKV (arXiv 2407.11550): SnapKV's scores, the budget of a layer shared out over its KV heads by them. Pure
// functions; candidates and choices are those of snapkv.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

struct AdaKvSettings {
  int64_t budget = 0;  ///< positions of a KV head, mean over the heads, the window included
  int64_t window = 0;
  int kernel = 1;    ///< of the pooling
  double alpha = 0;  ///< share of the budget that every head has for sure
};

/// The choice of every head of a layer, weights[head] of its candidates. With base = budget - window older keys a head:
/// the heaviest heads * base pooled scores of all heads give each head a count, and it keeps (1 - alpha) * count +
/// alpha * base of its own heaviest, rounded down and as far as it has so many. What that leaves over goes to the
/// heaviest that are left in any head, so that all heads together keep heads * budget, or all there is.
std::vector<std::vector<int32_t>> ChooseAdaKv(std::span<const std::vector<float>> weights,
                                              const AdaKvSettings& settings);

}  // namespace loopserve
