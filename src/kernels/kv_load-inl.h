// Vectors of f32 out of cache rows (f16, q8_0) on every SIMD target: one reader class for each KvType.
// Included once per target by the kernels' translation units, never by others.
#if defined(LOOPSERVE_KERNELS_KV_LOAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOOPSERVE_KERNELS_KV_LOAD_INL_H_
#undef LOOPSERVE_KERNELS_KV_LOAD_INL_H_
#else
#define LOOPSERVE_KERNELS_KV_LOAD_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "src/kernels/kv_view.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct F16Reader {
  /// Elements [i, i + Lanes(d)) of a row.
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const std::byte* row, size_t i) {
    const hn::Rebind<hwy::float16_t, D> dh;
    return hn::PromoteTo(d, hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(row) + i));
  }
};

struct Q8Reader {
  /// The same; i must not straddle a block of 32, so Lanes(d) divides 32 and i is a multiple of Lanes(d).
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const std::byte* row, size_t i) {
    const hn::Rebind<int8_t, D> d8;
    const hn::Rebind<uint16_t, D> du16;
    const hn::Rebind<hwy::float16_t, D> dh;
    const hn::Rebind<int32_t, D> di32;
    const std::byte* block = row + (i / 32) * 34;
    uint16_t scale_bits;
    std::memcpy(&scale_bits, block, sizeof(scale_bits));
    const auto scale = hn::PromoteTo(d, hn::BitCast(dh, hn::Set(du16, scale_bits)));
    const auto q = hn::LoadU(d8, reinterpret_cast<const int8_t*>(block + 2) + i % 32);
    return hn::Mul(hn::ConvertTo(d, hn::PromoteTo(di32, q)), scale);
  }
};

/// The whole row as f32 into `target` [n], n a multiple of 8 (kQ8_0: of 32).
template <class Reader>
HWY_INLINE void ReadRow(const std::byte* row, size_t n, float* HWY_RESTRICT target) {
  const hn::CappedTag<float, 16> d;
  const hn::CappedTag<float, 8> half;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) hn::StoreU(Reader::Load(d, row, i), d, target + i);
  for (; i < n; i += hn::Lanes(half)) hn::StoreU(Reader::Load(half, row, i), half, target + i);
}

HWY_INLINE void ReadKvRow(KvType type, const std::byte* row, size_t n, float* HWY_RESTRICT target) {
  if (type == KvType::kF16) {
    ReadRow<F16Reader>(row, n, target);
  } else {
    ReadRow<Q8Reader>(row, n, target);
  }
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // LOOPSERVE_KERNELS_KV_LOAD_INL_H_
