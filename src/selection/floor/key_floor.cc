#include "src/selection/floor/key_floor.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace loopserve {

void FewestKeys(std::span<const float> weights, double alpha, std::vector<int32_t>* keys) {
  keys->resize(weights.size());
  std::iota(keys->begin(), keys->end(), 0);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (!std::isfinite(total) || !(total > 0)) return;
  const auto lighter = [&](int32_t a, int32_t b) {
    const float x = weights[static_cast<size_t>(a)];
    const float y = weights[static_cast<size_t>(b)];
    return x != y ? x < y : a > b;
  };
  // Attention is concentrated: taking a few off a heap costs less than sorting all.
  std::make_heap(keys->begin(), keys->end(), lighter);
  auto heap_end = keys->end();
  double missing = alpha * total;
  while (missing > 0 && heap_end != keys->begin()) {
    std::pop_heap(keys->begin(), heap_end, lighter);
    missing -= weights[static_cast<size_t>(*--heap_end)];
  }
  keys->erase(keys->begin(), heap_end);
  std::reverse(keys->begin(), keys->end());
}

}  // namespace loopserve
