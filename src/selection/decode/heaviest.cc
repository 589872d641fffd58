#include "src/selection/decode/heaviest.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "src/base/check.h"
#include "src/kernels/key_codes.h"

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

int64_t KeepHeaviest(const int32_t* numbers, const float* totals, int64_t n, const WeightCut& cut, int32_t first,
                     int32_t* kept) {
  const float one = 1;
  const float above = cut.bin + 1 < WeightBins::kBins ? WeightBins::LeastOf(cut.bin + 1) : INFINITY;
  const int64_t n_padded = (n + 15) / 16 * 16;
  std::array<float, kMostNumbers + 16> weights;
  LS_CHECK(n_padded <= kMostNumbers);
  const int64_t found = FindHeavy(totals, 0, &one, 1, n_padded, cut.Least(), kept, weights.data());
  int64_t own = 0;
  for (int64_t i = 0; i < found; ++i) own += weights[static_cast<size_t>(i)] < above ? 1 : 0;
  int64_t dropped = own - cut.ShareOf(own);
  int64_t n_kept = 0;
  for (int64_t i = 0; i < found; ++i) {
    kept[n_kept] = first + numbers[kept[i]];
    // No branch: which weights are cut is as good as random.
    const bool is_dropped = (dropped > 0) & (weights[static_cast<size_t>(i)] < above);
    dropped -= is_dropped ? 1 : 0;
    n_kept += is_dropped ? 0 : 1;
  }
  return n_kept;
}

}  // namespace loopserve
