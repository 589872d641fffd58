#include "src/kernels/key_weights.h"

#include <algorithm>
#include <cmath>

#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/key_weights.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "src/base/check.h"

#ifndef LOOPSERVE_KERNELS_KEY_WEIGHTS_ONCE_
#define LOOPSERVE_KERNELS_KEY_WEIGHTS_ONCE_
namespace loopserve::weight_internal {

/// A difference of sums to 128ths of an octave, in 16-bit lanes: (min(difference, most) << shift) * factor >> 16.
struct Octaves {
  uint16_t most = 0;  // beyond it a weight is 0
  int shift = 0;
  uint16_t factor = 0;
};

/// bf16 of 1.
inline constexpr int kOne = 127 * 128;

}  // namespace loopserve::weight_internal
#endif  // LOOPSERVE_KERNELS_KEY_WEIGHTS_ONCE_

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes16 = hn::CappedTag<float, 16>;
using Words = hn::CappedTag<uint16_t, 32>;

HWY_INLINE hn::Vec<Lanes16> LoadWeights(Lanes16 d, const float* weights) { return hn::LoadU(d, weights); }
HWY_INLINE hn::Vec<Lanes16> LoadWeights(Lanes16 d, const uint16_t* weights) {
  const hn::RebindToUnsigned<Lanes16> du;
  const hn::Rebind<uint16_t, Lanes16> d16;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(d16, weights))));
}

uint16_t LargestSum(const uint16_t* sums, size_t n) {
  const Words d;
  auto largest = hn::Zero(d);
  for (size_t i = 0; i < n; i += hn::Lanes(d)) largest = hn::Max(largest, hn::LoadU(d, sums + i));
  HWY_ALIGN uint16_t lanes[hn::MaxLanes(Words())];
  hn::Store(largest, d, lanes);
  return *std::max_element(lanes, lanes + hn::Lanes(d));
}

/// The exponent and the mantissa of 2^-y are linear in y up to g(f) = 1 + f - 2^f, which 0.344 f (1 - f) is within
/// 0.002 of. Every product is rounded down, which makes weights too large by one unit of 2^-7 on average: taken off.
void WeighAllSums(const uint16_t* HWY_RESTRICT sums, size_t n, uint16_t largest,
                  const weight_internal::Octaves& octaves, uint16_t* HWY_RESTRICT weights) {
  const Words d;
  const auto top = hn::Set(d, largest);
  const auto most = hn::Set(d, octaves.most);
  const auto factor = hn::Set(d, octaves.factor);
  const auto one = hn::Set(d, static_cast<uint16_t>(weight_internal::kOne - 1));
  const auto mantissa_bits = hn::Set(d, uint16_t{127});
  const auto whole = hn::Set(d, uint16_t{128});
  const auto bend = hn::Set(d, uint16_t{176});  // 0.344 / 128 * 2^16
  for (size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto difference = hn::Min(hn::Sub(top, hn::LoadU(d, sums + i)), most);
    const auto y = hn::MulHigh(hn::ShiftLeftSame(difference, octaves.shift), factor);
    const auto linear = hn::SaturatedSub(one, y);
    const auto f = hn::And(linear, mantissa_bits);
    const auto g = hn::MulHigh(hn::Mul(f, hn::Sub(whole, f)), bend);
    hn::StoreU(hn::Sub(linear, g), d, weights + i);
  }
}

void SumGroupWeights(const uint16_t* HWY_RESTRICT weights, int n_groups, float* HWY_RESTRICT sums) {
  const Lanes16 d;
  for (int g = 0; g < n_groups; ++g, weights += kCodeGroupKeys) {
    auto group = hn::Zero(d);
    for (size_t i = 0; i < kCodeGroupKeys; i += hn::Lanes(d)) group = hn::Add(group, LoadWeights(d, weights + i));
    sums[g] = hn::GetLane(hn::SumOfLanes(d, group));
  }
}

template <class Weight>
HWY_INLINE int64_t FindAtLeast(const Weight* weights, int64_t stride, const float* factor, int n_queries, int64_t n,
                               float least, int32_t* HWY_RESTRICT numbers, float* HWY_RESTRICT totals) {
  const Lanes16 d;
  const hn::RebindToSigned<Lanes16> di;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  const auto limit = hn::Set(d, least);
  int64_t count = 0;
  for (int64_t t = 0; t < n; t += step) {
    auto total = hn::Zero(d);
    for (int r = 0; r < n_queries; ++r) {
      total = hn::MulAdd(hn::Set(d, factor[r]), LoadWeights(d, weights + r * stride + t), total);
    }
    const auto mask = hn::Ge(total, limit);
    if (hn::AllFalse(d, mask)) continue;
    // Compressing into registers: the instruction that compresses into memory takes over a hundred cycles on Zen 4.
    hn::StoreU(hn::Compress(total, mask), d, totals + count);
    const auto number = hn::Iota(di, static_cast<int32_t>(t));
    hn::StoreU(hn::Compress(number, hn::RebindMask(di, mask)), di, numbers + count);
    count += static_cast<int64_t>(hn::CountTrue(d, mask));
  }
  for (int64_t i = count; i % 16 != 0; ++i) {
    numbers[i] = 0;
    totals[i] = 0;
  }
  return count;
}

int64_t FindHeavyOfQueries(const uint16_t* weights, int64_t stride, const float* factor, int n_queries, int64_t n,
                           float least, int32_t* numbers, float* totals) {
  return FindAtLeast(weights, stride, factor, n_queries, n, least, numbers, totals);
}

int64_t FindHeavyOfTotals(const float* all, int64_t n, float least, int32_t* numbers, float* totals) {
  const float one = 1;
  return FindAtLeast(all, 0, &one, 1, n, least, numbers, totals);
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve {
namespace {

using weight_internal::kOne;
using weight_internal::Octaves;

Octaves OctavesOf(float step) {
  Octaves octaves;
  const float units = step * 128;
  octaves.most = static_cast<uint16_t>(std::clamp(std::ceil(kOne / units), 1.0f, 32767.0f));
  while (octaves.most << (octaves.shift + 1) <= 65535) ++octaves.shift;
  octaves.factor = static_cast<uint16_t>(std::min(65535.0f, std::ldexp(units, 16 - octaves.shift)));
  return octaves;
}

}  // namespace

HWY_EXPORT(LargestSum);
HWY_EXPORT(WeighAllSums);
HWY_EXPORT(SumGroupWeights);
HWY_EXPORT(FindHeavyOfQueries);
HWY_EXPORT(FindHeavyOfTotals);

float WeighSums(const uint16_t* sums, int n_groups, float base, float step, uint16_t* weights, float* group_sums) {
  LS_CHECK(n_groups >= 1);
  const size_t n = static_cast<size_t>(n_groups) * kCodeGroupKeys;
  if (std::isnan(base)) {
    constexpr uint16_t kNaN = 0x7FC0;
    std::fill_n(weights, n, kNaN);
    std::fill_n(group_sums, n_groups, NAN);
    return base;
  }
  const uint16_t largest = HWY_DYNAMIC_DISPATCH(LargestSum)(sums, n);
  HWY_DYNAMIC_DISPATCH(WeighAllSums)(sums, n, largest, OctavesOf(step), weights);
  HWY_DYNAMIC_DISPATCH(SumGroupWeights)(weights, n_groups, group_sums);
  return base + step * largest;
}

int64_t FindHeavy(const uint16_t* weights, int64_t stride, const float* factor, int n_queries, int64_t n, float least,
                  int32_t* numbers, float* totals) {
  LS_CHECK(n % 16 == 0);
  return HWY_DYNAMIC_DISPATCH(FindHeavyOfQueries)(weights, stride, factor, n_queries, n, least, numbers, totals);
}

int64_t FindHeavyTotals(const float* all, int64_t n, float least, int32_t* numbers, float* totals) {
  LS_CHECK(n % 16 == 0);
  return HWY_DYNAMIC_DISPATCH(FindHeavyOfTotals)(all, n, least, numbers, totals);
}

}  // namespace loopserve
#endif  // HWY_ONCE
