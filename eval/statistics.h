// Means of scores with what they may be off by. Answers of one dialogue depend on each other, so dialogues are drawn
// anew, not answers (cluster bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13, 8).
// Thread rule: pure functions; the same input gives the same output on every machine.
#pragma once

#include <cstdint>
#include <span>

namespace loopserve::eval {

/// The values of one dialogue.
struct Cluster {
  double sum = 0;
  int64_t n = 0;
};

struct Estimate {
  double mean = 0;           ///< of all values
  double low = 0, high = 0;  ///< 95 % interval; both the mean where there are fewer than two dialogues
  int64_t n_values = 0;
  int64_t n_clusters = 0;  ///< dialogues with at least one value
};

inline constexpr int kResamples = 2000;

/// Clusters without values do not count. No values: all zero.
Estimate EstimateMean(std::span<const Cluster> clusters, int resamples = kResamples);

/// A ratio of two sums over the same dialogues, as speed-ups are: sum of above / sum of below. n of `below` are the
/// values. Zero where below's sum is not above zero.
Estimate EstimateRatio(std::span<const Cluster> above, std::span<const Cluster> below, int resamples = kResamples);

}  // namespace loopserve::eval
