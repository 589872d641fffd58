#include "eval/statistics.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <vector>

namespace loopserve::eval {
namespace {

constexpr double kTail = 0.025;

/// SplitMix64 (Steele, Lea and Flood 2014): the standard library's distributions differ between machines.
class Dice {
 public:
  /// 0 to n - 1; n is so small against 2^64 that the remainder's bias does not show.
  size_t Throw(size_t n) {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<size_t>((z ^ (z >> 31)) % n);
  }

 private:
  uint64_t state_ = 1;
};

/// Sets the interval to what `of` gives for sets of clusters (indices) that are drawn anew.
template <class Statistic>
void Bootstrap(size_t n_clusters, int resamples, const Statistic& of, Estimate* estimate) {
  estimate->low = estimate->high = estimate->mean;
  estimate->n_clusters = static_cast<int64_t>(n_clusters);
  if (n_clusters < 2 || resamples < 1) return;
  std::vector<double> values;
  std::vector<size_t> drawn(n_clusters);
  Dice dice;
  for (int i = 0; i < resamples; ++i) {
    for (size_t& cluster : drawn) cluster = dice.Throw(n_clusters);
    values.push_back(of(drawn));
  }
  std::ranges::sort(values);
  const auto tail = static_cast<size_t>(kTail * static_cast<double>(values.size()));
  estimate->low = values[tail];
  estimate->high = values[values.size() - 1 - tail];
}

double MedianOf(std::vector<double>& values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::ranges::nth_element(values, middle);
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

std::vector<size_t> EachOnce(size_t n) {
  std::vector<size_t> all(n);
  std::iota(all.begin(), all.end(), size_t{0});
  return all;
}

}  // namespace

Estimate EstimateMean(std::span<const Cluster> clusters, int resamples) {
  std::vector<Cluster> filled;
  std::ranges::copy_if(clusters, std::back_inserter(filled), [](const Cluster& cluster) { return cluster.n > 0; });
  const auto mean = [&](std::span<const size_t> drawn) {
    Cluster total;
    for (const size_t i : drawn) {
      total.sum += filled[i].sum;
      total.n += filled[i].n;
    }
    return total.n > 0 ? total.sum / static_cast<double>(total.n) : 0.0;
  };
  Estimate estimate;
  for (const Cluster& cluster : filled) estimate.n_values += cluster.n;
  estimate.mean = mean(EachOnce(filled.size()));
  Bootstrap(filled.size(), resamples, mean, &estimate);
  return estimate;
}

Estimate EstimateMedian(std::span<const std::vector<double>> clusters, int resamples) {
  std::vector<std::span<const double>> filled;
  for (const std::vector<double>& values : clusters) {
    if (!values.empty()) filled.emplace_back(values);
  }
  std::vector<double> all;
  const auto median = [&](std::span<const size_t> drawn) {
    all.clear();
    for (const size_t i : drawn) all.insert(all.end(), filled[i].begin(), filled[i].end());
    return MedianOf(all);
  };
  Estimate estimate;
  for (const std::span<const double> values : filled) estimate.n_values += std::ssize(values);
  estimate.mean = median(EachOnce(filled.size()));
  Bootstrap(filled.size(), resamples, median, &estimate);
  return estimate;
}

}  // namespace loopserve::eval
