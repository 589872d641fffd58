#include "src/kernels/machine_peak.h"

#include <cstdint>

#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/machine_peak.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kChains = 12;
constexpr int kRounds = 2'000'000;

double MultiplyAdds() {
  const hn::ScalableTag<float> d;
  hn::Vec<decltype(d)> sum[kChains];
  LOOPSERVE_UNROLL
  for (int i = 0; i < kChains; ++i) sum[i] = hn::Set(d, static_cast<float>(i));
  auto factor = hn::Set(d, 0.999f);
  auto term = hn::Set(d, 0.001f);
  for (int round = 0; round < kRounds; ++round) {
    LOOPSERVE_UNROLL
    for (int i = 0; i < kChains; ++i) sum[i] = hn::MulAdd(sum[i], factor, term);
  }
  auto total = sum[0];
  for (int i = 1; i < kChains; ++i) total = hn::Add(total, sum[i]);
  volatile float sink = hn::GetLane(total);
  (void)sink;
  return 2.0 * kChains * kRounds * static_cast<double>(hn::Lanes(d));
}

double Read(const std::byte* memory, size_t bytes) {
  const hn::ScalableTag<uint32_t> d;
  auto a = hn::Zero(d);
  auto b = hn::Zero(d);
  auto c = hn::Zero(d);
  auto e = hn::Zero(d);
  const size_t lanes = hn::Lanes(d);
  const auto* words = reinterpret_cast<const uint32_t*>(memory);
  for (size_t i = 0; i + 4 * lanes <= bytes / 4; i += 4 * lanes) {
    a = hn::Xor(a, hn::LoadU(d, words + i));
    b = hn::Xor(b, hn::LoadU(d, words + i + lanes));
    c = hn::Xor(c, hn::LoadU(d, words + i + 2 * lanes));
    e = hn::Xor(e, hn::LoadU(d, words + i + 3 * lanes));
  }
  volatile uint32_t sink = hn::GetLane(hn::Xor(hn::Xor(a, b), hn::Xor(c, e)));
  (void)sink;
  return static_cast<double>(bytes);
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#endif

namespace loopserve {
HWY_EXPORT(MultiplyAdds);
HWY_EXPORT(Read);

double RunF32MultiplyAdds() { return HWY_DYNAMIC_DISPATCH(MultiplyAdds)(); }
double ReadMemory(const std::byte* memory, size_t bytes) { return HWY_DYNAMIC_DISPATCH(Read)(memory, bytes); }

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
__attribute__((target("avx512f,avx512bf16"))) double RunBf16MultiplyAdds() {
  constexpr int kSums = 12;
  constexpr int kSteps = 2'000'000;
  __m512 sum[kSums];
  LOOPSERVE_UNROLL
  for (int i = 0; i < kSums; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const auto factor = (__m512bh)_mm512_set1_epi16(0x3F80);
  for (int step = 0; step < kSteps; ++step) {
    LOOPSERVE_UNROLL
    for (int i = 0; i < kSums; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], factor, factor);
  }
  __m512 total = sum[0];
  for (int i = 1; i < kSums; ++i) total = _mm512_add_ps(total, sum[i]);
  volatile float sink = _mm512_cvtss_f32(total);
  (void)sink;
  return 2.0 * kSums * kSteps * 32;
}
#else
double RunBf16MultiplyAdds() { return 0; }
#endif

}  // namespace loopserve
#endif  // HWY_ONCE
