#include "src/kernels/row_scores.h"

#include <algorithm>

#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/row_scores.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "src/kernels/exp2-inl.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes16 = hn::CappedTag<float, 16>;

float Largest(const float* HWY_RESTRICT scores, size_t n, float floor) {
  const Lanes16 d;
  const size_t step = hn::Lanes(d);
  auto largest = hn::Set(d, floor);
  size_t i = 0;
  for (; i + step <= n; i += step) {
    const auto x = hn::LoadU(d, scores + i);
    largest = hn::IfThenElse(hn::Gt(x, largest), x, largest);
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; i < n; ++i) {
    if (scores[i] > result) result = scores[i];
  }
  return result;
}

float ExpOf(float* HWY_RESTRICT scores, size_t n, float shift) {
  const Lanes16 d;
  const size_t step = hn::Lanes(d);
  const auto s = hn::Set(d, shift);
  auto sum = hn::Zero(d);
  for (size_t i = 0; i < n; i += step) {
    const auto weight = Exp2NonPositive(d, hn::Sub(hn::LoadU(d, scores + i), s));
    hn::StoreU(weight, d, scores + i);
    sum = hn::Add(sum, weight);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve {
HWY_EXPORT(Largest);
HWY_EXPORT(ExpOf);

float LargestScore(const float* scores, size_t n, float floor) {
  return HWY_DYNAMIC_DISPATCH(Largest)(scores, n, floor);
}
float ExpInPlace(float* scores, size_t n, float shift) { return HWY_DYNAMIC_DISPATCH(ExpOf)(scores, n, shift); }

}  // namespace loopserve
#endif  // HWY_ONCE
