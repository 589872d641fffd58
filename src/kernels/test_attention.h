// What the tests of the attention kernels share: caches, tolerances, comparison.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "src/kernels/attention.h"
#include "src/kernels/test_cache.h"

namespace loopserve::testing {

inline std::string Name(const Shape& s) {
  return "heads " + std::to_string(s.n_heads) + "/" + std::to_string(s.n_kv_heads) + " dim " +
         std::to_string(s.head_dim) + " rows " + std::to_string(s.n_rows) + " from " +
         std::to_string(s.first_position) + " window " + std::to_string(s.window) +
         (s.type == KvType::kQ8_0 ? " q8_0" : " f16");
}

inline TestCache RandomCache(const Shape& shape, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  return TestCache(shape, 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
                   [&](char, int, int64_t, int) { return normal(random); });
}

// Scores that are small whole numbers in units of log2, and values with few bits: products, scores and weights are then
// exact in bf16 too, so that path is held to the tolerance of f32 sums, and one key too many or too few shows.
inline TestCache LatticeCache(const Shape& shape) {
  std::mt19937 random(2);
  return TestCache(shape, 1.0f / std::numbers::log2e_v<float>, [&](char kind, int, int64_t, int lane) {
    if (kind == 'q') return random() % 4 == 0 ? 1.0f : 0.0f;
    if (kind == 'k') return lane % 8 == 0 ? static_cast<float>(random() % 3) - 1.0f : 0.0f;
    return (static_cast<float>(random() % 64) - 32.0f) / 8.0f;
  });
}

struct Norms {
  double score = 0;  // largest scale * |q| * |k|: bounds every sum of |q_i k_i| * scale
  double value = 0;  // largest |v_i|
};

inline Norms NormsOf(const TestCache& cache) {
  std::vector<float> unused;
  const AttentionProblem problem = cache.Problem(unused);
  Norms norms;
  double q = 0;
  double k = 0;
  std::vector<float> row(static_cast<size_t>(problem.head_dim));
  const auto squares = [](const float* x, int n) { return std::inner_product(x, x + n, x, 0.0); };
  for (int64_t r = 0; r < problem.n_rows; ++r) {
    for (int h = 0; h < problem.n_heads; ++h) {
      q = std::max(q, squares(problem.q + r * problem.q_row_stride + int64_t{h} * problem.head_dim, problem.head_dim));
    }
  }
  for (const KvHeadView& view : cache.views()) {
    for (int64_t t = 0; t < view.n_keys; ++t) {
      LoadKvRow(view.type, view.Key(t), view.head_dim, row.data());
      k = std::max(k, squares(row.data(), view.head_dim));
      LoadKvRow(view.type, view.Value(t), view.head_dim, row.data());
      for (const float x : row) norms.value = std::max(norms.value, std::abs(double{x}));
    }
  }
  norms.score = problem.scale * std::sqrt(q * k);
  return norms;
}

// f32: a sum of n products errs by at most n eps times the sum of their magnitudes, so a score errs by head_dim * eps *
// score (plus 3 eps of it for the folded scale); a weight by as much, relatively, plus exp2's 2.5e-7; the two sums over
// n_keys by n_keys * eps. A relative error e of weights and sums moves an average of values by at most 2 e |v|.
inline double F32Tolerance(const TestCache& cache, int head_dim) {
  constexpr double kEps = FLT_EPSILON / 2;
  const Norms norms = NormsOf(cache);
  const double weight = (head_dim + 3) * kEps * norms.score + 2.5e-7 + static_cast<double>(cache.n_keys()) * kEps;
  return 2 * norms.value * weight;
}

inline void ExpectNear(const std::vector<float>& actual, const std::vector<float>& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(double{actual[i]} - double{expected[i]});
    if (!(error <= worst)) {
      worst = error;
      at = i;
    }
  }
  EXPECT_LE(worst, tolerance) << "at " << at << ": " << actual[at] << " for " << expected[at];
}

/// The softmax weights of one row of one head over its causal keys, in f64.
inline std::vector<double> SoftmaxReference(const AttentionProblem& problem, int head, int64_t row) {
  const KvHeadView& kv = problem.kv[head / (problem.n_heads / problem.n_kv_heads)];
  const float* q = problem.q + row * problem.q_row_stride + int64_t{head} * problem.head_dim;
  std::vector<float> key(static_cast<size_t>(problem.head_dim));
  std::vector<double> weights;
  for (int64_t t = 0; t <= problem.first_position + row; ++t) {
    LoadKvRow(kv.type, kv.Key(t), kv.head_dim, key.data());
    weights.push_back(std::inner_product(key.begin(), key.end(), q, 0.0) * problem.scale);
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  for (double& weight : weights) weight /= sum;
  return weights;
}

}  // namespace loopserve::testing
