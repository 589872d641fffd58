#include "src/kernels/stored_product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "ggml.h"
#include "src/base/aligned_buffer.h"
#include "src/kernels/every_target.h"
#include "src/kernels/stored_row.h"

namespace loopserve {
namespace {

struct TypeCase {
  StoredType type;
  ggml_type ggml;
};

constexpr TypeCase kTypes[] = {
    {StoredType::kQ4_0, GGML_TYPE_Q4_0}, {StoredType::kQ4_1, GGML_TYPE_Q4_1}, {StoredType::kQ5_0, GGML_TYPE_Q5_0},
    {StoredType::kQ5_1, GGML_TYPE_Q5_1}, {StoredType::kQ8_0, GGML_TYPE_Q8_0}, {StoredType::kQ4_K, GGML_TYPE_Q4_K},
    {StoredType::kQ5_K, GGML_TYPE_Q5_K}, {StoredType::kQ6_K, GGML_TYPE_Q6_K},
};

/// Random weights, as ggml quantises them and as ggml reads them back.
struct Weights {
  Weights(const TypeCase& type, int64_t k, int64_t n, std::mt19937& random) : f32(static_cast<size_t>(k * n)) {
    std::normal_distribution<float> normal(0.1f, 1.0f);
    for (float& w : f32) w = normal(random);
    bytes.resize(ggml_row_size(type.ggml, k) * static_cast<size_t>(n));
    ggml_quantize_chunk(type.ggml, f32.data(), bytes.data(), 0, n, k, nullptr);
    ggml_get_type_traits(type.ggml)->to_float(bytes.data(), f32.data(), k * n);
    matrix = {type.type, bytes.data(), k, n};
  }
  std::vector<float> f32;
  std::vector<std::byte> bytes;
  StoredMatrix matrix;
};

/// Whole numbers with +-32767 in every group of 32: preparing them rounds nothing.
std::vector<float> LatticeRows(int64_t k, int64_t n_rows, std::mt19937& random) {
  std::uniform_int_distribution<int> number(-32767, 32767);
  std::vector<float> x(static_cast<size_t>(k * n_rows));
  for (size_t i = 0; i < x.size(); ++i) x[i] = i % 32 == 5 ? 32767.0f : static_cast<float>(number(random));
  return x;
}

AlignedBuffer Prepare(const std::vector<float>& x, int64_t k, int64_t n_rows) {
  AlignedBuffer prepared;
  EXPECT_TRUE(prepared.Reserve(PreparedBytes(k, n_rows)));
  for (int64_t r = 0; r < n_rows; ++r) {
    PrepareRow(x.data() + r * k, k, prepared.data() + PreparedRowBytes(k) * static_cast<size_t>(r));
  }
  PrepareTogether(prepared.data(), k, n_rows);
  return prepared;
}

double Dot(const float* a, const float* b, int64_t k, double* magnitude) {
  double sum = 0;
  *magnitude = 0;
  for (int64_t i = 0; i < k; ++i) {
    sum += double{a[i]} * b[i];
    *magnitude += std::abs(double{a[i]} * b[i]);
  }
  return sum;
}

TEST(StoredProduct, BlocksAreThoseOfGgml) {
  for (const TypeCase& type : kTypes) {
    EXPECT_EQ(BlockOf(type.type).weights, ggml_blck_size(type.ggml));
    EXPECT_EQ(BlockOf(type.type).bytes, static_cast<int64_t>(ggml_type_size(type.ggml)));
  }
}

/// Columns 2 to n - 2 of a product, on every target, against f64.
void ExpectProduct(const TypeCase& type, int64_t k, int64_t n_rows, std::mt19937& random) {
  constexpr int64_t n = 9, n_columns = n - 3, stride = 16;
  const Weights weights(type, k, n, random);
  const std::vector<float> x = LatticeRows(k, n_rows, random);
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(std::string(target) + " " + ggml_type_name(type.ggml) + " k " + std::to_string(k) + " rows " +
                 std::to_string(n_rows));
    const AlignedBuffer prepared = Prepare(x, k, n_rows);
    std::vector<float> out(static_cast<size_t>(n_rows * stride), -7.0f);
    StoredProduct(weights.matrix, prepared.data(), n_rows, 2, n_columns, out.data(), stride);
    for (int64_t r = 0; r < n_rows; ++r) {
      for (int64_t c = 0; c < n_columns; ++c) {
        double magnitude = 0;
        const double expected = Dot(weights.f32.data() + (c + 2) * k, x.data() + r * k, k, &magnitude);
        // Integers are exact; each scale, offset, product and sum rounds once. Offsets of 16 or 32 steps cancel
        // against integers of that size, so the magnitude of what is summed is up to 32 times the result's.
        const double tolerance = 32 * (k / 64.0 + 8) * std::numeric_limits<float>::epsilon() * magnitude;
        ASSERT_NEAR(out[r * stride + c], expected, tolerance) << "row " << r << " column " << c;
      }
      ASSERT_EQ(out[r * stride + n_columns], -7.0f);
    }
  });
}

TEST(StoredProduct, EqualsTheDequantisedProductOnEveryTarget) {
  std::mt19937 random(5);
  for (const TypeCase& type : kTypes) {
    const bool is_small = BlockOf(type.type).weights == 32;
    // Rows that end within a segment of 8 groups, too: 576 = 18 groups, 896 = 28.
    for (const int64_t k : is_small ? std::vector<int64_t>{32, 256, 576, 896} : std::vector<int64_t>{256, 1280}) {
      // A single row multiplies more columns at once; 5 and 16 are more rows than are taken at a time.
      for (const int64_t n_rows : {1, 5, 16}) ExpectProduct(type, k, n_rows, random);
    }
  }
}

TEST(StoredProduct, ARowIsTheSameInAnyCompany) {
  std::mt19937 random(10);
  // Enough columns that several blocks are needed where rows are taken in parts.
  const int64_t k = 1280, n = 150, most_rows = 17;
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> x(static_cast<size_t>(k * most_rows));
  for (float& value : x) value = normal(random);
  for (const TypeCase& type : kTypes) {
    const Weights weights(type, k, n, random);
    ForEveryTarget([&](const char* target) {
      std::vector<float> alone(static_cast<size_t>(n * most_rows)), out(alone.size());
      for (int64_t r = 0; r < most_rows; ++r) {
        const AlignedBuffer prepared = Prepare({x.begin() + r * k, x.begin() + (r + 1) * k}, k, 1);
        StoredProduct(weights.matrix, prepared.data(), 1, 0, n, alone.data() + r * n, n);
      }
      for (int64_t n_rows = 1; n_rows <= most_rows; ++n_rows) {
        SCOPED_TRACE(std::string(target) + " " + ggml_type_name(type.ggml) + " rows " + std::to_string(n_rows));
        const AlignedBuffer prepared = Prepare(x, k, n_rows);
        // Columns in two calls, too.
        StoredProduct(weights.matrix, prepared.data(), n_rows, 0, 121, out.data(), n);
        StoredProduct(weights.matrix, prepared.data(), n_rows, 121, n - 121, out.data() + 121, n);
        ASSERT_TRUE(std::equal(out.begin(), out.begin() + n * n_rows, alone.begin()));
      }
    });
  }
}

TEST(StoredProduct, PlainTwinIsTheSame) {
  std::mt19937 random(9);
  for (const TypeCase& type : kTypes) {
    const int64_t k = 512, n = 4;
    const Weights weights(type, k, n, random);
    const std::vector<float> x = LatticeRows(k, 1, random);
    const AlignedBuffer prepared = Prepare(x, k, 1);
    const PreparedRow row = PreparedRowAt(prepared.data(), k);
    std::vector<float> out(n);
    StoredColumnsPlain(type.type, reinterpret_cast<const uint8_t*>(weights.bytes.data()), k, &row, 1, n, out.data(), n);
    for (int64_t c = 0; c < n; ++c) {
      double magnitude = 0;
      const double expected = Dot(weights.f32.data() + c * k, x.data(), k, &magnitude);
      // What ggml gives back is rounded to f32 once or twice for each weight; sums are in double.
      ASSERT_NEAR(out[c], expected, 4 * std::numeric_limits<float>::epsilon() * 32 * magnitude)
          << ggml_type_name(type.ggml);
    }
  }
}

TEST(StoredProduct, RoundsActivationsTo16Bits) {
  std::mt19937 random(6);
  const int64_t k = 512, n = 64;
  const Weights weights(kTypes[4], k, n, random);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> x(k);
  for (float& value : x) value = normal(random);
  const AlignedBuffer prepared = Prepare(x, k, 1);
  std::vector<float> out(n);
  StoredProduct(weights.matrix, prepared.data(), 1, 0, n, out.data(), n);
  for (int64_t c = 0; c < n; ++c) {
    double magnitude = 0;
    const double expected = Dot(weights.f32.data() + c * k, x.data(), k, &magnitude);
    // Each value is off by at most half a step, 1/65534 of its group's largest: under 4 times the mean magnitude here.
    EXPECT_NEAR(out[c], expected, 4.0 / 65534 * magnitude);
  }
}

TEST(StoredProduct, ValuesThatAreNotFiniteStayVisible) {
  std::mt19937 random(7);
  const int64_t k = 256, n = 3;
  const Weights weights(kTypes[1], k, n, random);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    std::vector<float> x(k, 1.0f);
    x[77] = bad;
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      const AlignedBuffer prepared = Prepare(x, k, 1);
      std::vector<float> out(n);
      StoredProduct(weights.matrix, prepared.data(), 1, 0, n, out.data(), n);
      for (const float value : out) EXPECT_FALSE(std::isfinite(value));
    });
  }
}

TEST(StoredProduct, ZerosGiveZero) {
  std::mt19937 random(8);
  const int64_t k = 320, n = 2;
  const Weights weights(kTypes[2], k, n, random);
  const AlignedBuffer prepared = Prepare(std::vector<float>(k, 0.0f), k, 1);
  std::vector<float> out(n, 1.0f);
  StoredProduct(weights.matrix, prepared.data(), 1, 0, n, out.data(), n);
  for (const float value : out) EXPECT_EQ(value, 0.0f);
}

}  // namespace
}  // namespace loopserve
