// The heaviest keys of several runs of keys, found by counting instead of sorting: weights fall into bins, 32 to the
// octave, and from the bin that the budget cuts through each run takes its part. Pure functions.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// Bins of weights from 2^kLeastExponent on; what is lighter, or NaN, has none.
class WeightBins {
 public:
  static constexpr int kLeastExponent = -20;
  static constexpr int kMostExponent = 6;
  static constexpr int kBins = (kMostExponent - kLeastExponent) * 32;

  /// The bin of a weight, or -1. Infinite and very large weights are in the last.
  static int Of(float weight) {
    if (!(weight >= LeastOf(0))) return -1;
    const auto bin = static_cast<int>(std::bit_cast<uint32_t>(weight) >> kShift) - kFirst;
    return bin < kBins ? bin : kBins - 1;
  }
  /// The least weight of a bin.
  static constexpr float LeastOf(int bin) {
    return std::bit_cast<float>(static_cast<uint32_t>(bin + kFirst) << kShift);
  }

 private:
  static constexpr int kShift = 18;  // five bits of the mantissa are left: 32 bins to the octave
  static constexpr int kFirst = (127 + kLeastExponent) * 32;
};

/// Which weights are taken: those of bins above `bin`, and of that bin `taken` of the `held` that all runs have.
struct WeightCut {
  int bin = 0;
  int64_t taken = 0;
  int64_t held = 0;

  /// The least weight that is taken.
  float Least() const { return WeightBins::LeastOf(bin); }
  /// What a run takes that has `own` weights in the bin: rounded down, so that all runs together stay in the budget.
  int64_t ShareOf(int64_t own) const { return held == 0 ? 0 : own * taken / held; }
};

/// The cut that takes at most `wanted` of the weights counted in counts[WeightBins::kBins]; all of them if they are no
/// more. wanted at least 0.
WeightCut FindWeightCut(std::span<const uint32_t> counts, int64_t wanted);

/// Adds the bins of weights to counts[WeightBins::kBins].
void CountWeights(std::span<const float> weights, std::span<uint32_t> counts);

/// Numbers that KeepHeaviest takes at once: a run of coded keys.
inline constexpr int64_t kMostNumbers = 2048;

/// Of n numbers, ascending, with their weights (both as FindHeavy gives them) those that the cut takes, `first` added
/// to each, into `kept`, which has room for n and 16 more; of equal bins the last numbers. Returns how many.
int64_t KeepHeaviest(const int32_t* numbers, const float* totals, int64_t n, const WeightCut& cut, int32_t first,
                     int32_t* kept);

}  // namespace loopserve
