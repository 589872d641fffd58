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

// A reader loads elements [i, i + Lanes(d)) of a row, from Offset(i) bytes on, given the scale of the block that they
// lie in; vectors of the same block share it. Lanes(d) divides kBlock, and i is a multiple of Lanes(d).

struct F16Reader {
  static constexpr size_t kBlock = 0;  // no blocks
  static constexpr size_t kElementBytes = 2;
  template <class D>
  struct Scale {};
  static HWY_INLINE size_t Offset(size_t i) { return 2 * i; }
  template <class D>
  static HWY_INLINE Scale<D> LoadScale(D, const std::byte*, size_t) {
    return {};
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, Scale<D>, const std::byte* row, size_t offset) {
    const hn::Rebind<hwy::float16_t, D> dh;
    return hn::PromoteTo(d, hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(row + offset)));
  }
};

struct Q8Reader {
  static constexpr size_t kBlock = 32;
  static constexpr size_t kElementBytes = 1;
  template <class D>
  struct Scale {
    hn::Vec<D> value;
  };
  static HWY_INLINE size_t Offset(size_t i) { return i / 32 * 34 + 2 + i % 32; }
  /// Of the block of element i.
  template <class D>
  static HWY_INLINE Scale<D> LoadScale(D d, const std::byte* row, size_t i) {
    const hn::Rebind<uint16_t, D> du16;
    const hn::Rebind<hwy::float16_t, D> dh;
    uint16_t bits;
    std::memcpy(&bits, row + i / 32 * 34, sizeof(bits));
    return {hn::PromoteTo(d, hn::BitCast(dh, hn::Set(du16, bits)))};
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, Scale<D> scale, const std::byte* row, size_t offset) {
    const hn::Rebind<int8_t, D> d8;
    const hn::Rebind<int32_t, D> di32;
    const auto q = hn::LoadU(d8, reinterpret_cast<const int8_t*>(row + offset));
    return hn::Mul(hn::ConvertTo(d, hn::PromoteTo(di32, q)), scale.value);
  }
};

/// The whole row as f32 into `target` [n], n a multiple of 8 (kQ8_0: of 32).
template <class Reader>
HWY_INLINE void ReadRow(const std::byte* row, size_t n, float* HWY_RESTRICT target) {
  const hn::CappedTag<float, 16> d;
  const hn::CappedTag<float, 8> half;
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreU(Reader::Load(d, Reader::LoadScale(d, row, i), row, Reader::Offset(i)), d, target + i);
  }
  for (; i < n; i += hn::Lanes(half)) {
    hn::StoreU(Reader::Load(half, Reader::LoadScale(half, row, i), row, Reader::Offset(i)), half, target + i);
  }
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
