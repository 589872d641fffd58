#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "ggml.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "src/kernels/attention.h"
#include "src/kernels/every_target.h"

extern "C" void quantize_row_q8_0_ref(const float* x, void* y, int64_t k);

namespace loopserve {
namespace {

using ::testing::ElementsAreArray;

std::vector<float> RowsWithCorners(size_t n) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> row(n);
  for (size_t i = 0; i < n; ++i) row[i] = normal(random) * std::exp2(static_cast<float>(i / 32 % 24) - 18.0f);
  for (size_t i = 0; i < 32; ++i) row[i] = 0.0f;                                          // a zero block
  for (size_t i = 32; i < 64; ++i) row[i] = static_cast<float>(i % 5) + 0.5f;             // ties
  row[40] = 127.0f;                                                                       // scale exactly 1
  for (size_t i = 64; i < 96; ++i) row[i] = 1e-7f * static_cast<float>(i);                // subnormal in f16
  for (size_t i = 96; i < 128; ++i) row[i] = -60000.0f + 300.0f * static_cast<float>(i);  // near f16's end
  return row;
}

TEST(KvRow, F16RoundsToNearestEvenOnEveryTarget) {
  std::vector<float> row = RowsWithCorners(1024);
  const float corners[] = {65504.0f, 65519.9f, 65520.0f, 1e30f, -1e30f,   HUGE_VALF, -HUGE_VALF, 6e-8f,
                           2.9e-8f,  3.1e-8f,  6.1e-5f,  -0.0f, 1.0f / 3, 2049.0f,   2051.0f,    0x1.ffep-15f};
  std::copy(std::begin(corners), std::end(corners), row.begin() + 200);
  std::vector<uint16_t> expected(row.size());
  for (size_t i = 0; i < row.size(); ++i) expected[i] = ggml_fp32_to_fp16(row[i]);
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    std::vector<uint16_t> stored(row.size());
    StoreKvRow(KvType::kF16, row.data(), static_cast<int>(row.size()), reinterpret_cast<std::byte*>(stored.data()));
    EXPECT_THAT(stored, ElementsAreArray(expected));
  });
}

TEST(KvRow, Q8IsBitForBitGgmlsOnEveryTarget) {
  const std::vector<float> row = RowsWithCorners(1024);
  const size_t bytes = KvRowBytes(KvType::kQ8_0, static_cast<int>(row.size()));
  std::vector<uint8_t> expected(bytes);
  quantize_row_q8_0_ref(row.data(), expected.data(), static_cast<int64_t>(row.size()));
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    std::vector<uint8_t> stored(bytes);
    StoreKvRow(KvType::kQ8_0, row.data(), static_cast<int>(row.size()), reinterpret_cast<std::byte*>(stored.data()));
    EXPECT_THAT(stored, ElementsAreArray(expected));
  });
}

TEST(KvRow, WhatIsNotFiniteDoesNotComeBackAsNumbers) {
  std::vector<float> row(96, 1.0f);
  row[5] = std::numeric_limits<float>::quiet_NaN();
  row[40] = HUGE_VALF;
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    std::vector<std::byte> stored(KvRowBytes(KvType::kQ8_0, 96));
    StoreKvRow(KvType::kQ8_0, row.data(), 96, stored.data());
    std::vector<float> loaded(96);
    LoadKvRow(KvType::kQ8_0, stored.data(), 96, loaded.data());
    // Targets without f16 read a NaN as a number above f16's range.
    for (size_t i = 0; i < 64; ++i) EXPECT_FALSE(std::abs(loaded[i]) <= 65504.0f) << i;
    for (size_t i = 64; i < 96; ++i) EXPECT_NEAR(loaded[i], 1.0f, 1e-2f);
  });
}

TEST(KvRow, LoadGivesTheStoredValuesOnEveryTarget) {
  const std::vector<float> row = RowsWithCorners(1024);
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const int n : {8, 40, 64, 1024}) {
      std::vector<uint16_t> stored(row.size());
      StoreKvRow(KvType::kF16, row.data(), n, reinterpret_cast<std::byte*>(stored.data()));
      std::vector<float> loaded(static_cast<size_t>(n) + 1, 5.0f);
      LoadKvRow(KvType::kF16, reinterpret_cast<std::byte*>(stored.data()), n, loaded.data());
      for (int i = 0; i < n; ++i) {
        EXPECT_EQ(loaded[static_cast<size_t>(i)], ggml_fp16_to_fp32(stored[static_cast<size_t>(i)])) << n << " " << i;
      }
      EXPECT_EQ(loaded.back(), 5.0f) << "wrote beyond the row";
    }
    std::vector<std::byte> stored(KvRowBytes(KvType::kQ8_0, 1024));
    StoreKvRow(KvType::kQ8_0, row.data(), 1024, stored.data());
    std::vector<float> loaded(1024);
    LoadKvRow(KvType::kQ8_0, stored.data(), 1024, loaded.data());
    for (size_t i = 0; i < 1024; ++i) {
      uint16_t bits;
      std::memcpy(&bits, stored.data() + i / 32 * 34, sizeof(bits));
      EXPECT_EQ(loaded[i],
                ggml_fp16_to_fp32(bits) * static_cast<float>(static_cast<int8_t>(stored[i / 32 * 34 + 2 + i % 32])));
    }
  });
}

}  // namespace
}  // namespace loopserve
