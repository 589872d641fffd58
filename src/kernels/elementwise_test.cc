#include "src/kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "hwy/targets.h"

namespace loopserve {
namespace {

/// Runs `body` once for each SIMD target that this machine and this build have.
template <class Body>
void OnAllTargets(const Body& body) {
  for (int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
    const int64_t target = targets & -targets;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    body();
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

std::vector<float> Inputs() {
  std::vector<float> x = {0.0f, -0.0f, 1e-30f, -1e-30f, 80.0f, -80.0f, 90.0f, -90.0f, 1e4f, -1e4f, 3e38f, -3e38f};
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 8.0f);
  while (x.size() < 517) x.push_back(normal(random));
  return x;
}

double Silu(double x) { return x / (1.0 + std::exp(-x)); }
double Gelu(double x) { return x / 2 * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x))); }

void ExpectGate(void (*run)(float*, const float*, int64_t), double (*reference)(double)) {
  OnAllTargets([&] {
    std::vector<float> gate = Inputs();
    const std::vector<float> x = gate;
    const std::vector<float> up(gate.size(), 0.5f);
    run(gate.data(), up.data(), static_cast<int64_t>(gate.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = 0.5 * reference(x[i]);
      // exp within 4 units in the last place, a few roundings more, and cancellation near the function's own zero.
      EXPECT_NEAR(gate[i], expected, 32 * std::numeric_limits<float>::epsilon() * std::abs(expected) + 1e-6)
          << "x = " << x[i];
    }
  });
}

TEST(Elementwise, SiluMatchesF64AndStaysFiniteAtExtremes) { ExpectGate(SiluMultiply, Silu); }
TEST(Elementwise, GeluMatchesF64AndStaysFiniteAtExtremes) { ExpectGate(GeluMultiply, Gelu); }

TEST(Elementwise, Bf16RoundsToNearestEvenAndKeepsNan) {
  OnAllTargets([&] {
    std::vector<float> source = Inputs();
    source.push_back(std::numeric_limits<float>::quiet_NaN());
    const uint32_t nan_with_low_payload = 0x7F800001;
    float signalling;
    std::memcpy(&signalling, &nan_with_low_payload, 4);
    source.push_back(signalling);
    source.push_back(std::numeric_limits<float>::infinity());
    std::vector<uint16_t> target(source.size());
    RoundToBf16(source.data(), static_cast<int64_t>(source.size()), target.data());
    for (size_t i = 0; i < source.size(); ++i) {
      const uint32_t bits = static_cast<uint32_t>(target[i]) << 16;
      float value;
      std::memcpy(&value, &bits, 4);
      if (std::isnan(source[i])) {
        EXPECT_TRUE(std::isnan(value));
        continue;
      }
      uint32_t exact;
      std::memcpy(&exact, &source[i], 4);
      const uint32_t low = exact & 0xFFFF;
      const bool up = low > 0x8000 || (low == 0x8000 && (exact >> 16 & 1));
      EXPECT_EQ(target[i], (exact >> 16) + (up ? 1 : 0)) << source[i];
    }
  });
}

TEST(Elementwise, AddToAddsEveryElementOnce) {
  OnAllTargets([&] {
    const std::vector<float> source = Inputs();
    std::vector<float> target(source.size() + 1, 3.0f);
    AddTo(source.data(), static_cast<int64_t>(source.size()), target.data());
    for (size_t i = 0; i < source.size(); ++i) EXPECT_EQ(target[i], 3.0f + source[i]) << i;
    EXPECT_EQ(target.back(), 3.0f);
  });
}

TEST(RmsNormalize, EqualsTheDefinition) {
  OnAllTargets([&] {
    for (const int64_t n : {int64_t{1}, int64_t{7}, int64_t{576}}) {
      std::mt19937 random(static_cast<unsigned>(n));
      std::normal_distribution<float> normal(0.5f, 2.0f);
      std::vector<float> x(static_cast<size_t>(n)), weight(x.size());
      double squares = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = normal(random);
        weight[i] = normal(random);
        squares += double{x[i]} * x[i];
      }
      const std::vector<float> before = x;
      RmsNormalize(x.data(), weight.data(), n, 1e-5f, x.data());
      for (size_t i = 0; i < x.size(); ++i) {
        const double expected = before[i] * weight[i] / std::sqrt(squares / static_cast<double>(n) + 1e-5);
        // The sum has at most n / 4 + 8 roundings in a row, the quotient and the products four more.
        const double roundings = static_cast<double>(n) / 8 + 8;
        EXPECT_NEAR(x[i], expected, roundings * std::numeric_limits<float>::epsilon() * std::abs(expected));
      }
    }
  });
}

}  // namespace
}  // namespace loopserve
