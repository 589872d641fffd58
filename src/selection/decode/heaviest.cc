#include "src/selection/decode/heaviest.h"

#include <algorithm>

namespace loopserve {

WeightCut FindWeightCut(std::span<const uint32_t> counts, int64_t wanted) {
  WeightCut cut;
  for (cut.bin = WeightBins::kBins - 1; cut.bin >= 0; --cut.bin) {
    cut.held = counts[static_cast<size_t>(cut.bin)];
    if (cut.held >= wanted || cut.bin == 0) {
      cut.taken = std::min(cut.held, wanted);
      return cut;
    }
    wanted -= cut.held;
  }
  return cut;
}

void CountWeights(std::span<const float> weights, std::span<uint32_t> counts) {
  for (const float weight : weights) {
    const int bin = WeightBins::Of(weight);
    if (bin >= 0) ++counts[static_cast<size_t>(bin)];
  }
}

int64_t KeepHeaviest(std::span<const float> weights, const WeightCut& cut, std::span<int32_t> numbers) {
  const auto is_cut = [&](int32_t t) { return WeightBins::Of(weights[static_cast<size_t>(t)]) == cut.bin; };
  const int64_t own = std::ranges::count_if(numbers, is_cut);
  int64_t dropped = own - cut.ShareOf(own);
  int64_t n = 0;
  for (const int32_t t : numbers) {
    if (dropped > 0 && is_cut(t)) {
      --dropped;
      continue;
    }
    numbers[static_cast<size_t>(n++)] = t;
  }
  return n;
}

}  // namespace loopserve
