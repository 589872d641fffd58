// Working sets of different sizes for heads of different need, at the same total. Pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// How many keys of a head have how much weight: counts by octave and eighth of the share of the head's weight,
/// heaviest first. The last bin holds what is lighter than 2^-32.
class WeightHistogram {
 public:
  static constexpr int kBins = 257;
  /// weight: f32 [n_keys], of any total.
  explicit WeightHistogram(std::span<const float> weight);
  /// Keys in the bins [0, bin].
  int64_t CountTo(int bin) const { return counts_[static_cast<size_t>(bin)]; }

 private:
  std::array<int64_t, kBins> counts_{};  // cumulative
};

/// A budget for each head: of all keys of all heads the heaviest, n_heads * mean in all, but at least `low` and at most
/// `high` for every head. The sum is n_heads * mean, less what rounding loses, where the heads have so many keys.
std::vector<int64_t> SpreadBudgets(std::span<const WeightHistogram> heads, int64_t mean, int64_t low, int64_t high);

}  // namespace loopserve
