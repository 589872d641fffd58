#include "src/kernels/elementwise.h"

#include <cmath>

#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/elementwise.cc"
#include "hwy/foreach_target.h"
// foreach_target.h must come first.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Calls body(lanes, i) for whole vectors and then with one lane for each element that is left.
template <class Body>
HWY_INLINE void ForEachVector(int64_t n, const Body& body) {
  const hn::ScalableTag<float> wide;
  const hn::CappedTag<float, 1> one;
  const auto step = static_cast<int64_t>(hn::Lanes(wide));
  int64_t i = 0;
  for (; i + step <= n; i += step) body(wide, i);
  for (; i < n; ++i) body(one, i);
}

/// 1 / (1 + exp(-x)). Highway's Exp is only defined up to about 88: below x = -80, where the quotient is under 2e-35,
/// it becomes zero.
template <class D, class V>
HWY_INLINE V Sigmoid(D d, V x) {
  const auto one = hn::Set(d, 1.0f);
  const auto floor = hn::Set(d, -80.0f);
  const auto quotient = hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(hn::Max(x, floor)))));
  return hn::IfThenElseZero(hn::Ge(x, floor), quotient);
}

void RoundToBf16Impl(const float* HWY_RESTRICT source, int64_t n, uint16_t* HWY_RESTRICT target) {
  ForEachVector(n, [&](auto d, int64_t i) HWY_ATTR {
    const hn::Rebind<uint32_t, decltype(d)> du32;
    const hn::Rebind<uint16_t, decltype(d)> du16;
    const auto value = hn::LoadU(d, source + i);
    const auto bits = hn::BitCast(du32, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du32, 1u));
    const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du32, 0x7FFFu)));
    // A NaN's payload could carry into the exponent and make it a number: keep it quiet instead.
    const auto quiet = hn::Or(bits, hn::Set(du32, 0x00400000u));
    const auto is_nan = hn::RebindMask(du32, hn::IsNaN(value));
    hn::StoreU(hn::TruncateTo(du16, hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, rounded))), du16, target + i);
  });
}

void SiluMultiplyImpl(float* HWY_RESTRICT gate, const float* HWY_RESTRICT up, int64_t n) {
  ForEachVector(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto x = hn::LoadU(d, gate + i);
    hn::StoreU(hn::Mul(hn::Mul(x, Sigmoid(d, x)), hn::LoadU(d, up + i)), d, gate + i);
  });
}

void GeluMultiplyImpl(float* HWY_RESTRICT gate, const float* HWY_RESTRICT up, int64_t n) {
  ForEachVector(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto x = hn::LoadU(d, gate + i);
    const auto one = hn::Set(d, 1.0f);
    const auto cubic = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 0.044715f), one);
    const auto inner = hn::Mul(hn::Mul(hn::Set(d, 0.79788456080286535588f), x), cubic);
    // (1 + tanh(t)) / 2 = sigmoid(2t)
    const auto gelu = hn::Mul(x, Sigmoid(d, hn::Add(inner, inner)));
    hn::StoreU(hn::Mul(gelu, hn::LoadU(d, up + i)), d, gate + i);
  });
}

void AddToImpl(const float* HWY_RESTRICT source, int64_t n, float* HWY_RESTRICT target) {
  ForEachVector(n, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(d, target + i), hn::LoadU(d, source + i)), d, target + i);
  });
}

void RmsNormalizeImpl(const float* source, const float* HWY_RESTRICT weight, int64_t n, float eps, float* target) {
  const hn::ScalableTag<float> d;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  auto squares = hn::Zero(d);
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    const auto x = hn::LoadU(d, source + i);
    squares = hn::MulAdd(x, x, squares);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, squares));
  for (; i < n; ++i) sum += source[i] * source[i];
  const float factor = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  ForEachVector(n, [&](auto lanes, int64_t at) HWY_ATTR {
    const auto scaled = hn::Mul(hn::LoadU(lanes, source + at), hn::Set(lanes, factor));
    hn::StoreU(hn::Mul(scaled, hn::LoadU(lanes, weight + at)), lanes, target + at);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace loopserve
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve {

HWY_EXPORT(RoundToBf16Impl);
HWY_EXPORT(SiluMultiplyImpl);
HWY_EXPORT(GeluMultiplyImpl);
HWY_EXPORT(AddToImpl);
HWY_EXPORT(RmsNormalizeImpl);

void RoundToBf16(const float* source, int64_t n, uint16_t* target) {
  HWY_DYNAMIC_DISPATCH(RoundToBf16Impl)(source, n, target);
}
void SiluMultiply(float* gate, const float* up, int64_t n) { HWY_DYNAMIC_DISPATCH(SiluMultiplyImpl)(gate, up, n); }
void GeluMultiply(float* gate, const float* up, int64_t n) { HWY_DYNAMIC_DISPATCH(GeluMultiplyImpl)(gate, up, n); }
void AddTo(const float* source, int64_t n, float* target) { HWY_DYNAMIC_DISPATCH(AddToImpl)(source, n, target); }
void RmsNormalize(const float* source, const float* weight, int64_t n, float eps, float* target) {
  HWY_DYNAMIC_DISPATCH(RmsNormalizeImpl)(source, weight, n, eps, target);
}

}  // namespace loopserve
#endif  // HWY_ONCE
