#include "src/kernels/rope.h"

#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/rope.cc"
#include "hwy/foreach_target.h"
// foreach_target.h must come first.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V>
HWY_INLINE void Turn(D d, const float* HWY_RESTRICT turns, int64_t n_pairs, int64_t i, V* a, V* b) {
  const auto c = hn::LoadU(d, turns + i);
  const auto s = hn::LoadU(d, turns + n_pairs + i);
  const auto turned = hn::NegMulAdd(*b, s, hn::Mul(*a, c));
  *b = hn::MulAdd(*b, c, hn::Mul(*a, s));
  *a = turned;
}

/// Turns the pairs i ... i + Lanes(d) - 1 of a head.
template <class D>
HWY_INLINE void TurnPairs(D d, const float* HWY_RESTRICT turns, int64_t n_pairs, RopePairs pairs, int64_t i,
                          float* HWY_RESTRICT head) {
  hn::Vec<D> a, b;
  if (pairs == RopePairs::kHalves) {
    a = hn::LoadU(d, head + i);
    b = hn::LoadU(d, head + n_pairs + i);
    Turn(d, turns, n_pairs, i, &a, &b);
    hn::StoreU(a, d, head + i);
    hn::StoreU(b, d, head + n_pairs + i);
  } else {
    hn::LoadInterleaved2(d, head + 2 * i, a, b);
    Turn(d, turns, n_pairs, i, &a, &b);
    hn::StoreInterleaved2(a, b, d, head + 2 * i);
  }
}

void RotateHeadsImpl(const float* turns, int64_t n_pairs, RopePairs pairs, int64_t n_heads, int64_t head_dim,
                     float* x) {
  const hn::ScalableTag<float> wide;
  const hn::CappedTag<float, 1> one;
  const auto step = static_cast<int64_t>(hn::Lanes(wide));
  for (int64_t h = 0; h < n_heads; ++h) {
    float* head = x + h * head_dim;
    int64_t i = 0;
    for (; i + step <= n_pairs; i += step) TurnPairs(wide, turns, n_pairs, pairs, i, head);
    for (; i < n_pairs; ++i) TurnPairs(one, turns, n_pairs, pairs, i, head);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace loopserve
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve {

HWY_EXPORT(RotateHeadsImpl);

void RotateHeads(const float* turns, int64_t n_pairs, RopePairs pairs, int64_t n_heads, int64_t head_dim, float* x) {
  HWY_DYNAMIC_DISPATCH(RotateHeadsImpl)(turns, n_pairs, pairs, n_heads, head_dim, x);
}

}  // namespace loopserve
#endif  // HWY_ONCE
