#include "src/selection/lines/line_sums.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace loopserve {
namespace {

/// target[i] += source[i]. Apart, so that the compiler sees nothing that keeps it from using vectors.
void Add(const float* __restrict source, int64_t n, double* __restrict target) {
  for (int64_t i = 0; i < n; ++i) target[i] += source[i];
}

/// Whether the values add up to a finite number; in lanes, so that the compiler can use vectors.
bool IsFinite(const float* values, int64_t n) {
  constexpr int kLanes = 16;
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += values[i + lane];
  }
  return std::isfinite(std::accumulate(sums, sums + kLanes, std::accumulate(values + i, values + n, 0.0f)));
}

}  // namespace

void SumLines(const SampledRows& rows, int64_t n_keys, std::vector<double>* columns, std::vector<double>* slashes) {
  columns->assign(static_cast<size_t>(n_keys), 0);
  slashes->assign(static_cast<size_t>(n_keys), 0);
  for (size_t r = 0; r < rows.positions.size(); ++r) {
    const int64_t n = rows.positions[r] + 1;
    const float* weights = rows.weights + static_cast<int64_t>(r) * rows.stride;
    if (!IsFinite(weights, n)) continue;
    Add(weights, n, columns->data());
    Add(weights, n,
        slashes->data() +
            (n_keys - n));  // key t lies on slash n - 1 - t: the farthest come first, and are turned round below
  }
  std::ranges::reverse(*slashes);
}

}  // namespace loopserve
