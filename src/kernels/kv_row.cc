// Cache rows from and to f32: what the model's forward pass writes and the tests read back.
#include <cmath>
#include <cstring>

#include "src/kernels/attention.h"
#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/kv_row.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "src/base/check.h"
#include "src/kernels/kv_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {

// Highway's emulated conversion truncates; where the CPU has none, convert by hand, to nearest even.
#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR
uint16_t F16FromF32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);   // NaN
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7C00u);  // 2^16 and more: infinity
  if (magnitude < 0x38800000u) {
    // Below 2^-14 f16 is a fixed-point number of 2^-24 steps; adding 0.5f lines its last bit up with f32's.
    float shifted;
    std::memcpy(&shifted, &magnitude, sizeof(shifted));
    shifted += 0.5f;
    uint32_t shifted_bits;
    std::memcpy(&shifted_bits, &shifted, sizeof(shifted_bits));
    return static_cast<uint16_t>(sign | (shifted_bits - 0x3F000000u));
  }
  // A carry out of the mantissa moves on into the exponent, up to infinity, as it should.
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

void StoreF16(const float* source, size_t n, std::byte* row) {
  for (size_t i = 0; i < n; ++i) {
    const uint16_t bits = F16FromF32(source[i]);
    std::memcpy(row + 2 * i, &bits, sizeof(bits));
  }
}

uint16_t ScaleBits(float scale) { return F16FromF32(scale); }
#else
void StoreF16(const float* source, size_t n, std::byte* row) {
  const hn::CappedTag<float, 8> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> dh;
  auto* target = reinterpret_cast<hwy::float16_t*>(row);
  for (size_t i = 0; i < n; i += hn::Lanes(d)) hn::StoreU(hn::DemoteTo(dh, hn::LoadU(d, source + i)), dh, target + i);
}

uint16_t ScaleBits(float scale) {
  const hn::CappedTag<float, 4> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> dh;
  hwy::float16_t lanes[4];
  hn::StoreU(hn::DemoteTo(dh, hn::Set(d, scale)), dh, lanes);
  uint16_t bits;
  std::memcpy(&bits, lanes, sizeof(bits));
  return bits;
}
#endif

/// ggml's quantize_row_q8_0_ref bit for bit: scale = max|x| / 127, values rounded half away from zero. A block that is
/// not finite has a scale that is NaN: no target may make numbers of it.
void StoreQ8(const float* source, size_t n, std::byte* row) {
  const hn::CappedTag<float, 8> d;
  const hn::Rebind<int32_t, decltype(d)> di32;
  const hn::Rebind<int8_t, decltype(d)> d8;
  for (size_t i = 0; i < n; i += 32, row += 34) {
    auto largest = hn::Zero(d), poison = hn::Zero(d);  // poison: 0, or NaN where x is not finite
    for (size_t j = 0; j < 32; j += hn::Lanes(d)) {
      const auto x = hn::LoadU(d, source + i + j);
      largest = hn::Max(hn::Abs(x), largest);
      poison = hn::MulAdd(x, hn::Zero(d), poison);
    }
    const float max = hn::GetLane(hn::MaxOfLanes(d, largest));
    const float scale = max / 127.0f + hn::GetLane(hn::SumOfLanes(d, poison));
    if (std::isnan(scale)) {
      constexpr uint16_t kNaN = 0x7E00;
      std::memcpy(row, &kNaN, sizeof(kNaN));
      std::memset(row + 2, 1, 32);
      continue;
    }
    const auto inverse = hn::Set(d, scale != 0.0f ? 1.0f / scale : 0.0f);
    const uint16_t scale_bits = ScaleBits(scale);
    std::memcpy(row, &scale_bits, sizeof(scale_bits));
    for (size_t j = 0; j < 32; j += hn::Lanes(d)) {
      const auto x = hn::Mul(hn::LoadU(d, source + i + j), inverse);
      const auto whole = hn::Trunc(x);
      const auto one = hn::CopySignToAbs(hn::Set(d, 1.0f), x);
      const auto far = hn::Ge(hn::Abs(hn::Sub(x, whole)), hn::Set(d, 0.5f));
      const auto rounded = hn::Add(whole, hn::IfThenElseZero(far, one));
      hn::StoreU(hn::DemoteTo(d8, hn::ConvertTo(di32, rounded)), d8, reinterpret_cast<int8_t*>(row + 2) + j);
    }
  }
}

void StoreRow(KvType type, const float* source, size_t n, std::byte* row) {
  if (type == KvType::kF16) {
    StoreF16(source, n, row);
  } else {
    StoreQ8(source, n, row);
  }
}

void LoadRow(KvType type, const std::byte* row, size_t n, float* target) { ReadKvRow(type, row, n, target); }

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve {
HWY_EXPORT(StoreRow);
HWY_EXPORT(LoadRow);

void StoreKvRow(KvType type, const float* source, int n, std::byte* row) {
  LS_CHECK(n % (type == KvType::kF16 ? 8 : 32) == 0);
  HWY_DYNAMIC_DISPATCH(StoreRow)(type, source, static_cast<size_t>(n), row);
}

void LoadKvRow(KvType type, const std::byte* row, int n, float* target) {
  LS_CHECK(n % (type == KvType::kF16 ? 8 : 32) == 0);
  HWY_DYNAMIC_DISPATCH(LoadRow)(type, row, static_cast<size_t>(n), target);
}

}  // namespace loopserve
#endif  // HWY_ONCE
