// Random values for tests of products.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace loopserve {

/// n values of the standard normal distribution.
inline std::vector<float> NormalFloats(int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace loopserve
