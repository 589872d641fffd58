// 2^x for x <= 0 on every SIMD target: the softmax of prefill (f32) and decode.
// Included once per target by the kernels' translation units, never by others.
#if defined(LOOPSERVE_KERNELS_EXP2_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOOPSERVE_KERNELS_EXP2_INL_H_
#undef LOOPSERVE_KERNELS_EXP2_INL_H_
#else
#define LOOPSERVE_KERNELS_EXP2_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {

/// 2^x for x in [-inf, 0], relative error below 2.5e-7 (minimax polynomial of degree 5: 9.2e-8, the rest is rounding);
/// 0 below -126, exactly 1 at 0 (a tile that leaves the maximum as it is must not touch the sums), NaN for NaN.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Exp2NonPositive(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToSigned<D> di;
  const V floor = hn::Set(d, -126.0f);
  const V magic = hn::Set(d, 12582912.0f);  // 1.5 * 2^23: adding it leaves round(x) in the low mantissa bits
  const auto tiny = hn::Lt(x, floor);
  const V in_range = hn::IfThenElse(tiny, floor, x);  // unlike a maximum, lets a NaN through on every target
  const V shifted = hn::Add(in_range, magic);
  const V f = hn::Sub(in_range, hn::Sub(shifted, magic));
  V p = hn::MulAdd(f, hn::Set(d, 0.0013264728477224708f), hn::Set(d, 0.009671512991189957f));
  p = hn::MulAdd(f, p, hn::Set(d, 0.05550733581185341f));
  p = hn::MulAdd(f, p, hn::Set(d, 0.24022242426872253f));
  p = hn::MulAdd(f, p, hn::Set(d, 0.6931470036506653f));
  p = hn::MulAdd(f, p, hn::Set(d, 1.0f));
  const V scaled = hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, shifted))));
  return hn::IfThenZeroElse(tiny, scaled);
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // LOOPSERVE_KERNELS_EXP2_INL_H_
