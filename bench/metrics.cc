#include "bench/metrics.h"

#include <algorithm>
#include <cmath>

#include "src/base/check.h"

namespace loopserve::bench {

double LogSumExp(std::span<const float> logits) {
  LS_CHECK(!logits.empty());
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

double NegativeLogLikelihood(std::span<const float> logits, int32_t target) {
  LS_CHECK(target >= 0 && static_cast<size_t>(target) < logits.size());
  return LogSumExp(logits) - logits[static_cast<size_t>(target)];
}

double KlDivergence(std::span<const float> reference, std::span<const float> other) {
  LS_CHECK(reference.size() == other.size());
  const double reference_norm = LogSumExp(reference);
  const double other_norm = LogSumExp(other);
  double sum = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = reference[i] - reference_norm;
    const double p = std::exp(log_p);
    if (p > 0) sum += p * (log_p - (other[i] - other_norm));
  }
  // The exact value is never negative; rounding may leave a little below zero.
  return std::max(sum, 0.0);
}

bool SameTop1(std::span<const float> a, std::span<const float> b) {
  LS_CHECK(a.size() == b.size() && !a.empty());
  return std::max_element(a.begin(), a.end()) - a.begin() == std::max_element(b.begin(), b.end()) - b.begin();
}

double Median(std::vector<double> values) {
  LS_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double Percentile(std::vector<double> values, double fraction) {
  LS_CHECK(!values.empty() && fraction > 0 && fraction <= 1);
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<size_t>(std::ceil(fraction * static_cast<double>(values.size())));
  return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
}

}  // namespace loopserve::bench
