#include "eval/statistics.h"

#include <algorithm>
#include <vector>

#include "src/base/check.h"

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

/// One dialogue's part of a quotient.
struct Part {
  double above = 0;
  double below = 0;
};

double Quotient(double above, double below) { return below > 0 ? above / below : 0; }

/// The mean and the interval of sum(above) / sum(below).
Estimate Bootstrap(const std::vector<Part>& parts, int resamples) {
  Estimate estimate;
  Part total;
  for (const Part& part : parts) {
    total.above += part.above;
    total.below += part.below;
  }
  estimate.mean = estimate.low = estimate.high = Quotient(total.above, total.below);
  estimate.n_clusters = std::ssize(parts);
  if (parts.size() < 2 || resamples < 1) return estimate;
  std::vector<double> quotients;
  Dice dice;
  for (int i = 0; i < resamples; ++i) {
    Part drawn;
    for (size_t k = 0; k < parts.size(); ++k) {
      const Part& part = parts[dice.Throw(parts.size())];
      drawn.above += part.above;
      drawn.below += part.below;
    }
    quotients.push_back(Quotient(drawn.above, drawn.below));
  }
  std::ranges::sort(quotients);
  const auto tail = static_cast<size_t>(kTail * static_cast<double>(quotients.size()));
  estimate.low = quotients[tail];
  estimate.high = quotients[quotients.size() - 1 - tail];
  return estimate;
}

}  // namespace

Estimate EstimateMean(std::span<const Cluster> clusters, int resamples) {
  std::vector<Part> parts;
  int64_t n = 0;
  for (const Cluster& cluster : clusters) {
    if (cluster.n > 0) parts.push_back({cluster.sum, static_cast<double>(cluster.n)});
    n += cluster.n;
  }
  Estimate estimate = Bootstrap(parts, resamples);
  estimate.n_values = n;
  return estimate;
}

Estimate EstimateRatio(std::span<const Cluster> above, std::span<const Cluster> below, int resamples) {
  LS_CHECK(above.size() == below.size());
  std::vector<Part> parts;
  int64_t n = 0;
  for (size_t i = 0; i < above.size(); ++i) {
    if (below[i].n > 0) parts.push_back({above[i].sum, below[i].sum});
    n += below[i].n;
  }
  Estimate estimate = Bootstrap(parts, resamples);
  estimate.n_values = n;
  return estimate;
}

}  // namespace loopserve::eval
