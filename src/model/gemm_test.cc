#include "src/model/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/kernels/test_random.h"

namespace loopserve {
namespace {

class GemmTest : public testing::TestWithParam<GemmMath> {
 protected:
  void SetUp() override {
    if (!Gemm::IsAvailable(GetParam())) GTEST_SKIP() << "not on this CPU or not in this build";
    auto gemm = Gemm::Create(GetParam());
    ASSERT_TRUE(gemm.ok()) << gemm.status().message();
    gemm_ = std::move(gemm).value();
  }
  std::unique_ptr<Gemm> gemm_;
};

TEST_P(GemmTest, MatchesF64ForEveryRemainder) {
  // Terms have size 1. bf16: each operand is off by up to 2^-9, independently over sqrt(k) terms, six standard
  // deviations. f32: each of k additions rounds a running sum of size sqrt(i) by 2^-24, which adds up to 2^-24 k /
  // sqrt(6); ten of that. int8: each operand is off by up to half of 3.5 / 127, 3.5 the largest of a group, which are
  // sqrt(2 / 12) steps of deviation for both; six of that.
  const auto tolerance = [](int64_t k) {
    const auto terms = static_cast<double>(k);
    if (GetParam() == GemmMath::kInt8) return 6 * 3.5 / 127 * std::sqrt(2.0 / 12) * std::sqrt(terms);
    return GetParam() == GemmMath::kBf16 ? 6 * std::ldexp(1.0, -8) * std::sqrt(terms) : std::ldexp(1.0, -22) * terms;
  };
  for (const auto& [k, n] : {std::pair<int64_t, int64_t>{64, 64}, {96, 200}, {576, 960}, {40, 72}}) {
    const std::vector<float> weights = NormalFloats(n * k, 1);  // [n, k]
    const std::vector<float> bias = NormalFloats(n, 2);
    AlignedBuffer packed, scratch;
    ASSERT_TRUE(packed.Reserve(gemm_->PackedBytes(k, n)));
    ASSERT_TRUE(scratch.Reserve(gemm_->MultiplyScratchBytes(k, n)));
    for (int64_t c = 0; c < n; c += Gemm::kPackColumns) {
      gemm_->PackColumns(weights.data() + c * k, k, n, c, std::min(Gemm::kPackColumns, n - c), packed.data());
    }
    for (const int64_t rows : {1, 16, 31, 32, 33, 64, 255, 256, 257, 300}) {
      const std::vector<float> x = NormalFloats(rows * (k + 3), 3);  // rows k + 3 floats apart
      std::vector<float> y(static_cast<size_t>(rows * n), NAN);
      gemm_->Multiply(packed.data(), k, n, x.data(), k + 3, rows, bias.data(), y.data(), scratch.data());
      double worst = 0;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < n; ++c) {
          double expected = bias[c];
          for (int64_t i = 0; i < k; ++i) expected += double{x[r * (k + 3) + i]} * double{weights[c * k + i]};
          worst = std::max(worst, std::abs(expected - y[r * n + c]));
        }
      }
      EXPECT_LE(worst, tolerance(k)) << rows << " rows, k " << k << ", n " << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Math, GemmTest, testing::Values(GemmMath::kF32, GemmMath::kBf16, GemmMath::kInt8),
                         [](const auto& test) {
                           if (test.param == GemmMath::kInt8) return "Int8";
                           return test.param == GemmMath::kF32 ? "F32" : "Bf16";
                         });

}  // namespace
}  // namespace loopserve
