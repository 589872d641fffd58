#include "src/kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "src/kernels/every_target.h"

namespace loopserve {
namespace {

struct Shape {
  int64_t n_pairs;
  int64_t head_dim;
};

/// By complex numbers: pair number i of a head is a + bi, turned by multiplying with c + si.
std::vector<float> Reference(const std::vector<float>& turns, const Shape& shape, RopePairs pairs, int64_t n_heads,
                             std::vector<float> x) {
  for (int64_t h = 0; h < n_heads; ++h) {
    for (int64_t i = 0; i < shape.n_pairs; ++i) {
      const int64_t head = h * shape.head_dim;
      const int64_t first = head + (pairs == RopePairs::kHalves ? i : 2 * i);
      const int64_t second = pairs == RopePairs::kHalves ? first + shape.n_pairs : first + 1;
      const double a = x[static_cast<size_t>(first)], b = x[static_cast<size_t>(second)];
      const double c = turns[static_cast<size_t>(i)], s = turns[static_cast<size_t>(shape.n_pairs + i)];
      x[static_cast<size_t>(first)] = static_cast<float>(a * c - b * s);
      x[static_cast<size_t>(second)] = static_cast<float>(a * s + b * c);
    }
  }
  return x;
}

TEST(RotateHeads, EqualsComplexMultiplicationOnEveryTargetAndLeavesTheRestAlone) {
  constexpr int64_t kHeads = 3;
  for (const Shape shape : {Shape{32, 64}, Shape{16, 64}, Shape{5, 13}, Shape{1, 2}, Shape{64, 128}}) {
    std::mt19937 random(static_cast<unsigned>(shape.head_dim));
    std::normal_distribution<float> normal(0.0f, 2.0f);
    std::vector<float> turns(static_cast<size_t>(2 * shape.n_pairs));
    std::vector<float> x(static_cast<size_t>(kHeads * shape.head_dim));
    for (float& value : turns) value = std::sin(normal(random));
    for (float& value : x) value = normal(random);
    for (const RopePairs pairs : {RopePairs::kNeighbours, RopePairs::kHalves}) {
      const std::vector<float> expected = Reference(turns, shape, pairs, kHeads, x);
      ForEveryTarget([&](const char* target) {
        std::vector<float> turned = x;
        RotateHeads(turns.data(), shape.n_pairs, pairs, kHeads, shape.head_dim, turned.data());
        for (size_t i = 0; i < x.size(); ++i) {
          const auto at = static_cast<int64_t>(i) % shape.head_dim;
          // Two products and a sum of numbers under 16: three roundings. What does not turn stays bit for bit.
          const float bound = at < 2 * shape.n_pairs ? 3 * 16 * 6e-8f : 0.0f;
          EXPECT_NEAR(turned[i], expected[i], bound) << target << " head_dim " << shape.head_dim << " element " << i;
        }
      });
    }
  }
}

}  // namespace
}  // namespace loopserve
