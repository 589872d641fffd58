#include "src/kernels/int8_product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/kernels/test_random.h"

namespace loopserve {
namespace {

constexpr std::pair<int64_t, int64_t> kShapes[] = {{64, 32}, {128, 64}, {576, 200}, {40, 72}, {8, 3}, {1000, 33}};

AlignedBuffer Pack(const std::vector<float>& weights, int64_t k, int64_t n) {
  AlignedBuffer packed;
  EXPECT_TRUE(packed.Reserve(Int8WeightBytes(k, n)));
  PackInt8Weights(weights.data(), k, n, packed.data());
  return packed;
}

AlignedBuffer PreparePlain(const std::vector<float>& x, int64_t k, int64_t n_rows) {
  AlignedBuffer rows;
  EXPECT_TRUE(rows.Reserve(Int8RowBytes(k) * static_cast<size_t>(n_rows)));
  std::memset(rows.data(), 0, rows.bytes());
  for (int64_t r = 0; r < n_rows; ++r) {
    PrepareInt8RowPlain(x.data() + r * k, k, rows.data() + Int8RowBytes(k) * static_cast<size_t>(r));
  }
  return rows;
}

/// Half a step of each factor, times the largest of the other, for each of k inputs: what rounding may cost at most.
double RoundingBound(const float* x, const float* w, int64_t k) {
  double bound = 0;
  for (int64_t first = 0; first < k; first += kInt8Group) {
    const int64_t n = std::min(kInt8Group, k - first);
    const auto largest = [n](const float* values) {
      return double{
          std::abs(*std::max_element(values, values + n, [](float a, float b) { return std::abs(a) < std::abs(b); }))};
    };
    const double of_x = largest(x + first), of_w = largest(w + first);
    // (x + dx)(w + dw) - xw, |dx| <= of_x / 254, |dw| <= of_w / 254
    bound += static_cast<double>(n) * of_x * of_w * (2.0 / 254 + 1.0 / (254.0 * 254));
  }
  return bound;
}

TEST(Int8Product, PlainIsTheProductButForRounding) {
  for (const auto& [k, n] : kShapes) {
    const std::vector<float> weights = NormalFloats(n * k, 1), x = NormalFloats(3 * k, 2);
    const AlignedBuffer packed = Pack(weights, k, n), rows = PreparePlain(x, k, 3);
    std::vector<float> y(static_cast<size_t>(3 * n), NAN);
    Int8ProductPlain(packed.data(), k, n, rows.data(), 3, y.data());
    for (int64_t r = 0; r < 3; ++r) {
      double squares = 0;
      for (int64_t c = 0; c < n; ++c) {
        double expected = 0;
        for (int64_t i = 0; i < k; ++i) expected += double{x[r * k + i]} * double{weights[c * k + i]};
        const double error = std::abs(expected - y[r * n + c]);
        EXPECT_LE(error, RoundingBound(x.data() + r * k, weights.data() + c * k, k));
        squares += error * error;
      }
      // Uniform rounding of both in steps of largest / 127, largest about 2.5: a variance of 2 (2.5 / 127)^2 / 12 for
      // each of k terms of size 1; twice the deviation is far from what chance does.
      EXPECT_LE(std::sqrt(squares / static_cast<double>(n)),
                2 * (3.0 / 127) * std::sqrt(2.0 / 12 * static_cast<double>(k)));
    }
  }
}

/// Integers with +-127 in every group round to themselves, and their sums stay exact in f32.
TEST(Int8Product, IsExactOnIntegers) {
  const int64_t k = 192, n = 40;
  std::mt19937 random(4);
  std::uniform_int_distribution<int> number(-127, 127);
  const auto integers = [&](int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) values[i] = i % 32 == 9 ? -127.0f : static_cast<float>(number(random));
    return values;
  };
  const std::vector<float> weights = integers(n * k), x = integers(2 * k);
  const AlignedBuffer packed = Pack(weights, k, n), rows = PreparePlain(x, k, 2);
  std::vector<float> y(static_cast<size_t>(2 * n));
  Int8ProductPlain(packed.data(), k, n, rows.data(), 2, y.data());
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      double expected = 0;
      for (int64_t i = 0; i < k; ++i) expected += double{x[r * k + i]} * double{weights[c * k + i]};
      EXPECT_EQ(y[r * n + c], expected);
    }
  }
}

class NativeInt8Product : public testing::Test {
 protected:
  void SetUp() override {
    if (!CpuHasInt8Products()) GTEST_SKIP() << "no AVX512_VNNI";
  }
};

TEST_F(NativeInt8Product, RoundsRowsAsPlainDoes) {
  for (const auto& [k, n] : kShapes) {
    for (const float scale : {1.0f, 1e-30f, 1e-38f, 1e30f, 0.0f}) {
      std::vector<float> x = NormalFloats(k, 5);
      for (float& value : x) value *= scale;
      const AlignedBuffer plain = PreparePlain(x, k, 1);
      AlignedBuffer native;
      ASSERT_TRUE(native.Reserve(Int8RowBytes(k)));
      std::memset(native.data(), 0, native.bytes());
      PrepareInt8Row(x.data(), k, native.data());
      EXPECT_EQ(std::memcmp(plain.data(), native.data(), Int8RowBytes(k)), 0) << "k " << k << ", times " << scale;
    }
  }
}

TEST_F(NativeInt8Product, EqualsPlainForEveryRemainder) {
  for (const auto& [k, n] : kShapes) {
    const AlignedBuffer packed = Pack(NormalFloats(n * k, 6), k, n);
    for (int64_t n_rows = 1; n_rows <= 14; ++n_rows) {
      const AlignedBuffer rows = PreparePlain(NormalFloats(n_rows * k, 7), k, n_rows);
      std::vector<float> expected(static_cast<size_t>(n_rows * n)), y(expected.size() + 1, -7.0f);
      Int8ProductPlain(packed.data(), k, n, rows.data(), n_rows, expected.data());
      Int8Product(packed.data(), k, n, rows.data(), n_rows, y.data());
      // Sums of a group are exact; each of the groups is rounded twice and added once, to a sum of size sqrt(k).
      const int64_t groups = k / kInt8Group + 1;
      const double tolerance = std::ldexp(3.0, -24) * static_cast<double>(groups) * 8 * std::sqrt(k);
      for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(y[i], expected[i], tolerance);
      EXPECT_EQ(y.back(), -7.0f) << "wrote behind its end";
    }
  }
}

TEST_F(NativeInt8Product, ARowIsTheSameInAnyCompany) {
  const int64_t k = 320, n = 96, n_rows = 13;
  const AlignedBuffer packed = Pack(NormalFloats(n * k, 8), k, n),
                      rows = PreparePlain(NormalFloats(n_rows * k, 9), k, n_rows);
  std::vector<float> together(static_cast<size_t>(n_rows * n)), alone(static_cast<size_t>(n));
  Int8Product(packed.data(), k, n, rows.data(), n_rows, together.data());
  for (int64_t r = 0; r < n_rows; ++r) {
    Int8Product(packed.data(), k, n, rows.data() + Int8RowBytes(k) * static_cast<size_t>(r), 1, alone.data());
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + r * n)) << "row " << r;
  }
}

TEST_F(NativeInt8Product, WhatIsNotFiniteGivesNaN) {
  const int64_t k = 128, n = 32;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    std::vector<float> x = NormalFloats(k, 10), weights = NormalFloats(n * k, 11), y(static_cast<size_t>(n));
    AlignedBuffer row;
    ASSERT_TRUE(row.Reserve(Int8RowBytes(k)));
    x[70] = bad;
    PrepareInt8Row(x.data(), k, row.data());
    Int8Product(Pack(weights, k, n).data(), k, n, row.data(), 1, y.data());
    EXPECT_TRUE(std::all_of(y.begin(), y.end(), [](float value) { return std::isnan(value); }));
    x[70] = 0;
    weights[static_cast<size_t>(5 * k + 3)] = bad;  // of output 5 alone
    PrepareInt8Row(x.data(), k, row.data());
    Int8Product(Pack(weights, k, n).data(), k, n, row.data(), 1, y.data());
    for (int64_t c = 0; c < n; ++c) EXPECT_EQ(std::isnan(y[static_cast<size_t>(c)]), c == 5);
  }
}

}  // namespace
}  // namespace loopserve
