// Means of scores with what they may be off by. Answers on the same texts depend on each other, so clusters of
// dialogues are drawn anew, not answers (cluster bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap,
// 1993, chapters 13, 8). Thread rule: pure functions; the same input gives the same output on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve::eval {

/// The values of the dialogues on the same texts.
struct Cluster {
  double sum = 0;
  int64_t n = 0;
};

struct Estimate {
  double mean = 0;           ///< of all values; or their median
  double low = 0, high = 0;  ///< 95 % interval; both the mean where there are fewer than two clusters
  int64_t n_values = 0;
  int64_t n_clusters = 0;  ///< with at least one value

  bool has_interval() const { return n_clusters >= 2; }
};

inline constexpr int kResamples = 2000;

/// Clusters without values do not count. No values: all zero.
Estimate EstimateMean(std::span<const Cluster> clusters, int resamples = kResamples);

/// The median of all values, of each cluster's in a vector: for times, of which another program's work on the machine
/// makes some many times longer. No values: all zero.
Estimate EstimateMedian(std::span<const std::vector<double>> clusters, int resamples = kResamples);

}  // namespace loopserve::eval
