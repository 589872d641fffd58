// How each stored type becomes 16-bit integers and scales, for StoredProduct: a group of 32 weights is
// scale * integer + offset. Layouts: ggml-common.h; bytes are read one by one or unaligned, as blocks lie
// anywhere. Included once per target by stored_product.cc.
#if defined(LOOPSERVE_KERNELS_STORED_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOOPSERVE_KERNELS_STORED_FORMATS_INL_H_
#undef LOOPSERVE_KERNELS_STORED_FORMATS_INL_H_
#else
#define LOOPSERVE_KERNELS_STORED_FORMATS_INL_H_
#endif

#include <cstring>

#include "hwy/highway.h"
#include "src/kernels/stored_product.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

inline constexpr int kGroup = 32;
inline constexpr int kBlockGroups = 8;

// 256 bits at most: a group of 16 integers fills a vector, and there is no second half to combine.
using F32 = hn::CappedTag<float, 8>;
inline constexpr int kFloatLanes = static_cast<int>(hn::MaxLanes(F32()));
using I32 = hn::RebindToSigned<F32>;
using Floats = hn::Vec<F32>;

#if HWY_TARGET != HWY_SCALAR  // whose vectors have one lane: StoredColumnsPlain stands in
using I16 = hn::Repartition<int16_t, F32>;
using U16 = hn::RebindToUnsigned<I16>;
using U8 = hn::Rebind<uint8_t, I16>;
using I8 = hn::Rebind<int8_t, I16>;
using Half = hn::Rebind<hwy::float16_t, F32>;
using Ints = hn::Vec<I16>;

inline constexpr int kIntLanes = static_cast<int>(hn::MaxLanes(I16()));
inline constexpr int kParts = kGroup / kIntLanes;  ///< vectors of integers of a group

HWY_INLINE float HalfToFloat(const uint8_t* bytes) {
  const hn::CappedTag<float, 1> d1;
  const hn::Rebind<hwy::float16_t, decltype(d1)> half;
  hwy::float16_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return hn::GetLane(hn::PromoteTo(d1, hn::Load(half, &value)));
}

/// Two halves that stand side by side: the first in all even lanes, the second in all odd ones.
HWY_INLINE Floats LoadHalfPair(const uint8_t* bytes) {
  uint32_t pair;
  std::memcpy(&pair, bytes, sizeof(pair));
  return hn::PromoteTo(F32(), hn::BitCast(Half(), hn::Set(hn::Repartition<uint32_t, Half>(), pair)));
}
/// The half in all lanes.
HWY_INLINE Floats LoadHalf(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return hn::PromoteTo(F32(), hn::BitCast(Half(), hn::Set(hn::Rebind<uint16_t, F32>(), bits)));
}

/// 16 bytes of nibbles: the low ones are weights 0 to 15, the high ones 16 to 31.
HWY_INLINE void Nibbles(const uint8_t* bytes, Ints* w) {
  LOOPSERVE_UNROLL
  for (int i = 0; i < kParts / 2; ++i) {
    const auto pair = hn::BitCast(I16(), hn::PromoteTo(U16(), hn::LoadU(U8(), bytes + i * kIntLanes)));
    w[i] = hn::And(pair, hn::Set(I16(), 15));
    w[i + kParts / 2] = hn::ShiftRight<4>(pair);
  }
}

/// Which of the 32 bits of `bytes` are set (the first in the lowest bit of the first byte), for part i of the weights.
HWY_INLINE auto BitsOfPart(const uint8_t* bytes, int i) {
  HWY_ALIGN static constexpr uint16_t kBits[16] = {1 << 0,  1 << 1,  1 << 2,  1 << 3, 1 << 4,  1 << 5,
                                                   1 << 6,  1 << 7,  1 << 8,  1 << 9, 1 << 10, 1 << 11,
                                                   1 << 12, 1 << 13, 1 << 14, 1 << 15};
  const auto bit = hn::Load(U16(), kBits);
  uint16_t part = bytes[i];
  if constexpr (kIntLanes == 16) std::memcpy(&part, bytes + 2 * i, sizeof(part));
  return hn::RebindMask(I16(), hn::TestBit(hn::Set(U16(), part), bit));
}

/// The 6-bit scales and minima of q4_K and q5_K: 12 bytes -> 8 and 8 (scale j and minimum j for j < 4 in the low bits
/// of bytes j and j + 4; the others' low nibbles in bytes 8 to 11, their high bits on top of the first).
HWY_INLINE void LoadScalesK(const uint8_t* HWY_RESTRICT block, float* HWY_RESTRICT scale, float* HWY_RESTRICT offset) {
  const uint8_t* q = block + 4;
  const float d = HalfToFloat(block), d_min = HalfToFloat(block + 2);
  uint32_t word[3];
  std::memcpy(word, q, sizeof(word));
  HWY_ALIGN uint32_t packed[4];
  packed[0] = word[0] & 0x3F3F3F3Fu;
  packed[1] = (word[2] & 0x0F0F0F0Fu) | (((word[0] >> 6) & 0x03030303u) << 4);
  packed[2] = word[1] & 0x3F3F3F3Fu;
  packed[3] = ((word[2] >> 4) & 0x0F0F0F0Fu) | (((word[1] >> 6) & 0x03030303u) << 4);
  const auto* bytes = reinterpret_cast<const uint8_t*>(packed);
  const hn::Rebind<uint8_t, F32> u8;
  for (int i = 0; i < kBlockGroups; i += kFloatLanes) {
    const auto scales = hn::ConvertTo(F32(), hn::PromoteTo(I32(), hn::LoadU(u8, bytes + i)));
    const auto minima = hn::ConvertTo(F32(), hn::PromoteTo(I32(), hn::LoadU(u8, bytes + 8 + i)));
    hn::Store(hn::Mul(scales, hn::Set(F32(), d)), F32(), scale + i);
    hn::Store(hn::Mul(minima, hn::Set(F32(), -d_min)), F32(), offset + i);
  }
}

template <StoredType kType>
struct Format;

// Types of one block for each group: ScaleAndOffset gives d in the even lanes, and in the odd ones what times
// kOffsetFactor is the offset.

/// d, 16 bytes of nibbles; integers are 8 too large.
template <>
struct Format<StoredType::kQ4_0> {
  static constexpr int kGroupBytes = 18;
  static constexpr float kOffsetFactor = -8;
  static HWY_INLINE Floats ScaleAndOffset(const uint8_t* group) { return LoadHalf(group); }
  static HWY_INLINE void Unpack(const uint8_t* group, Ints* w) { Nibbles(group + 2, w); }
};

/// d, minimum, 16 bytes of nibbles.
template <>
struct Format<StoredType::kQ4_1> {
  static constexpr int kGroupBytes = 20;
  static constexpr float kOffsetFactor = 1;
  static HWY_INLINE Floats ScaleAndOffset(const uint8_t* group) { return LoadHalfPair(group); }
  static HWY_INLINE void Unpack(const uint8_t* group, Ints* w) { Nibbles(group + 4, w); }
};

/// d, 4 bytes of fifth bits, 16 bytes of nibbles; together 16 too large.
template <>
struct Format<StoredType::kQ5_0> {
  static constexpr int kGroupBytes = 22;
  static constexpr float kOffsetFactor = 0;
  static HWY_INLINE Floats ScaleAndOffset(const uint8_t* group) { return LoadHalf(group); }
  static HWY_INLINE void Unpack(const uint8_t* group, Ints* w) {
    Nibbles(group + 6, w);
    LOOPSERVE_UNROLL
    for (int i = 0; i < kParts; ++i) {
      // A nibble with all bits above it set is the nibble - 16.
      w[i] = hn::Or(w[i], hn::IfThenZeroElse(BitsOfPart(group + 2, i), hn::Set(I16(), -16)));
    }
  }
};

/// d, minimum, 4 bytes of fifth bits, 16 bytes of nibbles.
template <>
struct Format<StoredType::kQ5_1> {
  static constexpr int kGroupBytes = 24;
  static constexpr float kOffsetFactor = 1;
  static HWY_INLINE Floats ScaleAndOffset(const uint8_t* group) { return LoadHalfPair(group); }
  static HWY_INLINE void Unpack(const uint8_t* group, Ints* w) {
    Nibbles(group + 8, w);
    LOOPSERVE_UNROLL
    for (int i = 0; i < kParts; ++i) {
      w[i] = hn::Or(w[i], hn::IfThenElseZero(BitsOfPart(group + 4, i), hn::Set(I16(), 16)));
    }
  }
};

/// d, 32 signed bytes.
template <>
struct Format<StoredType::kQ8_0> {
  static constexpr int kGroupBytes = 34;
  static constexpr float kOffsetFactor = 0;
  static HWY_INLINE Floats ScaleAndOffset(const uint8_t* group) { return LoadHalf(group); }
  static HWY_INLINE void Unpack(const uint8_t* group, Ints* w) {
    const auto* q = reinterpret_cast<const int8_t*>(group + 2);
    LOOPSERVE_UNROLL
    for (int i = 0; i < kParts; ++i) w[i] = hn::PromoteTo(I16(), hn::LoadU(I8(), q + i * kIntLanes));
  }
};

// Types of 8 groups in a block.

/// 32 bytes hold group 2j in their low nibbles and 2j + 1 in their high ones.
HWY_INLINE void NibblesK(const uint8_t* quants, int g, Ints* w) {
  LOOPSERVE_UNROLL
  for (int i = 0; i < kParts; ++i) {
    const auto pair =
        hn::BitCast(I16(), hn::PromoteTo(U16(), hn::LoadU(U8(), quants + g / 2 * kGroup + i * kIntLanes)));
    w[i] = g % 2 == 0 ? hn::And(pair, hn::Set(I16(), 15)) : hn::ShiftRight<4>(pair);
  }
}

/// d, d_min, 12 bytes of scales and minima, 128 bytes of nibbles.
template <>
struct Format<StoredType::kQ4_K> {
  static constexpr int kBlockBytes = 144;
  static HWY_INLINE void Unpack(const uint8_t* block, int g, Ints* w) { NibblesK(block + 16, g, w); }
};

/// d, d_min, 12 bytes of scales and minima, 32 bytes with one bit for each group, 128 bytes of nibbles.
template <>
struct Format<StoredType::kQ5_K> {
  static constexpr int kBlockBytes = 176;
  static HWY_INLINE void Unpack(const uint8_t* block, int g, Ints* w) {
    NibblesK(block + 48, g, w);
    LOOPSERVE_UNROLL
    for (int i = 0; i < kParts; ++i) {
      const auto high = hn::PromoteTo(U16(), hn::LoadU(U8(), block + 16 + i * kIntLanes));
      const auto is_set = hn::TestBit(high, hn::Set(U16(), static_cast<uint16_t>(1 << g)));
      w[i] = hn::Or(w[i], hn::BitCast(I16(), hn::IfThenElseZero(is_set, hn::Set(U16(), uint16_t{16}))));
    }
  }
};

/// 128 bytes of low nibbles, 64 of high pairs of bits, 16 signed scales (one for each 16 weights), d; integers are 32
/// too large. Group g of 8: nibbles of bytes 64 (g / 4) + 32 (g % 2), low for g % 4 < 2; bits 2 (g % 4) of bytes 32 (g
/// / 4).
template <>
struct Format<StoredType::kQ6_K> {
  static constexpr int kBlockBytes = 210;
  static HWY_INLINE void Scales16(const uint8_t* block, float* scale) {
    const auto d = hn::Set(F32(), HalfToFloat(block + 208));
    const auto* q = reinterpret_cast<const int8_t*>(block + 192);
    const hn::Rebind<int8_t, F32> i8;
    for (int i = 0; i < 2 * kBlockGroups; i += kFloatLanes) {
      hn::Store(hn::Mul(hn::ConvertTo(F32(), hn::PromoteTo(I32(), hn::LoadU(i8, q + i))), d), F32(), scale + i);
    }
  }
  static HWY_INLINE void Unpack(const uint8_t* block, int g, Ints* w) {
    const uint8_t* low = block + 64 * (g / 4) + 32 * (g % 2);
    const uint8_t* high = block + 128 + 32 * (g / 4);
    const I16 d;
    LOOPSERVE_UNROLL
    for (int i = 0; i < kParts; ++i) {
      const auto nibbles = hn::BitCast(d, hn::PromoteTo(U16(), hn::LoadU(U8(), low + i * kIntLanes)));
      const auto bits = hn::BitCast(d, hn::PromoteTo(U16(), hn::LoadU(U8(), high + i * kIntLanes)));
      const auto four = g % 4 < 2 ? hn::And(nibbles, hn::Set(d, 15)) : hn::ShiftRight<4>(nibbles);
      // Straight to bits 4 and 5.
      const int shift = 2 * (g % 4);
      const auto moved = shift < 4 ? hn::ShiftLeftSame(bits, 4 - shift) : hn::ShiftRightSame(bits, shift - 4);
      const auto two = hn::And(moved, hn::Set(d, 0x30));
      w[i] = hn::Sub(hn::Or(four, two), hn::Set(d, 32));
    }
  }
};

#endif  // not HWY_SCALAR

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LOOPSERVE_KERNELS_STORED_FORMATS_INL_H_
