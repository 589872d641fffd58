// Prefill arithmetic in bf16 products with f32 sums, for x86 CPUs with AVX512_BF16 (Zen 4, Cooper Lake, Sapphire
// Rapids and later). Highway 1.0 has no target for them, so the functions here carry the target attribute themselves;
// the file is compiled for the baseline, and everything in it is local, so no wide code can leak out by inlining.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "src/base/check.h"
#include "src/kernels/attention_tiles.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593, in its own intrinsics
#endif
#include <immintrin.h>

#include "src/kernels/simd_targets.h"

#define LOOPSERVE_BF16 __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define LOOPSERVE_BF16_INLINE LOOPSERVE_BF16 __attribute__((always_inline)) inline
#define LOOPSERVE_BF16_NOINLINE LOOPSERVE_BF16 __attribute__((noinline))

namespace loopserve {

bool CpuHasNativeBf16() {
  static const bool has = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return has;
}

namespace attention_internal {
namespace {

constexpr int kVecs = 4;
constexpr size_t kLanes = 16;

/// c[r][:] = alpha[r] * c[r][:] + sum over k of a[r][k] . b[k][:], where an element of a and b is a pair of bf16 and
/// the product of two pairs adds both; kRows rows, kCols vectors of columns. alpha null: c is not read.
/// a_stride and b_stride in pairs.
template <int kRows, int kCols>
LOOPSERVE_BF16_NOINLINE void Multiply(const uint32_t* __restrict a, size_t a_stride, const uint32_t* __restrict b,
                                      size_t b_stride, size_t steps, float* __restrict c, size_t c_stride,
                                      const float* __restrict alpha) {
  __m512 sum[kRows][kCols];
  LOOPSERVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOOPSERVE_UNROLL
    for (int j = 0; j < kCols; ++j) {
      sum[r][j] = alpha == nullptr ? _mm512_setzero_ps()
                                   : _mm512_mul_ps(_mm512_set1_ps(alpha[r]), _mm512_load_ps(c + r * c_stride + j * 16));
    }
  }
  for (size_t k = 0; k < steps; ++k, b += b_stride) {
    __m512bh right[kCols];
    LOOPSERVE_UNROLL
    for (int j = 0; j < kCols; ++j) right[j] = (__m512bh)_mm512_load_si512(b + j * 16);
    LOOPSERVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m512bh left = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r * a_stride + k]));
      LOOPSERVE_UNROLL
      for (int j = 0; j < kCols; ++j) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], left, right[j]);
    }
  }
  LOOPSERVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOOPSERVE_UNROLL
    for (int j = 0; j < kCols; ++j) _mm512_store_ps(c + r * c_stride + j * 16, sum[r][j]);
  }
}

template <int kRows>
LOOPSERVE_BF16_INLINE void Scores(const RowTile& tile) {
  const size_t pairs = tile.head_dim / 2;
  const auto* q = reinterpret_cast<const uint32_t*>(tile.q);
  for (int key = 0; key < tile.n_keys; key += kPackGroupKeys) {
    const uint32_t* keys = reinterpret_cast<const uint32_t*>(tile.k) + static_cast<size_t>(key) * pairs;
    Multiply<kRows, kVecs>(q, pairs, keys, kPackGroupKeys, pairs, tile.scores + key, kMaxTileKeys, nullptr);
  }
}

template <int kRows>
LOOPSERVE_BF16_INLINE void AddValues(const RowTile& tile, const uint32_t* weights, const float* alpha) {
  constexpr size_t kWeightStride = kMaxTileKeys / 2;
  const size_t n = tile.padded_dim;
  const auto steps = static_cast<size_t>(tile.n_keys + 1) / 2;
  const auto* v = reinterpret_cast<const uint32_t*>(tile.v);
  size_t j = 0;
  for (; j + kVecs * kLanes <= n; j += kVecs * kLanes) {
    Multiply<kRows, kVecs>(weights, kWeightStride, v + j, n, steps, tile.out + j, n, alpha);
  }
  const size_t rest = (n - j) / kLanes;
  if (rest == 1) Multiply<kRows, 1>(weights, kWeightStride, v + j, n, steps, tile.out + j, n, alpha);
  if (rest == 2) Multiply<kRows, 2>(weights, kWeightStride, v + j, n, steps, tile.out + j, n, alpha);
  if (rest == 3) Multiply<kRows, 3>(weights, kWeightStride, v + j, n, steps, tile.out + j, n, alpha);
}

/// 2^x: x split into floor and fraction by vreduceps, a cubic that is exactly 1 at 0, vscalefps. Relative error 8.6e-5,
/// a twentieth of bf16's rounding. -inf gives 0, NaN gives NaN.
LOOPSERVE_BF16_INLINE __m512 Exp2(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 0x09);  // x - floor(x)
  __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(0.07706709951162338f), _mm512_set1_ps(0.2276448905467987f));
  p = _mm512_fmadd_ps(f, p, _mm512_set1_ps(0.6951168179512024f));
  p = _mm512_fmadd_ps(f, p, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);
}

/// Scores of keys [0, n) to bf16 weights; updates the row's maximum and sum (of the rounded weights, so that rounding
/// does not bias the mean) and returns the factor for what came before. n is a multiple of kPackGroupKeys.
LOOPSERVE_BF16_INLINE float SoftmaxRow(const float* __restrict scores, size_t n, uint32_t* __restrict weights,
                                       float* max, float* __restrict sum) {
  __m512 largest[4];
  LOOPSERVE_UNROLL
  for (int j = 0; j < 4; ++j) largest[j] = _mm512_set1_ps(*max);
  for (size_t i = 0; i < n; i += 64) {
    LOOPSERVE_UNROLL
    for (int j = 0; j < 4; ++j) largest[j] = _mm512_max_ps(largest[j], _mm512_load_ps(scores + i + j * 16));
  }
  const float new_max =
      _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_max_ps(largest[2], largest[3])));
  const __m512 shift = _mm512_set1_ps(new_max);
  const __m512 alpha = Exp2(_mm512_sub_ps(_mm512_set1_ps(*max), shift));
  *max = new_max;
  const auto ones = (__m512bh)_mm512_set1_epi16(0x3F80);
  __m512 total = _mm512_mul_ps(alpha, _mm512_load_ps(sum));
  for (size_t i = 0; i < n; i += 32) {
    const __m512 low = Exp2(_mm512_sub_ps(_mm512_load_ps(scores + i), shift));
    const __m512 high = Exp2(_mm512_sub_ps(_mm512_load_ps(scores + i + 16), shift));
    const __m512bh pair = _mm512_cvtne2ps_pbh(high, low);
    total = _mm512_dpbf16_ps(total, pair, ones);
    _mm512_store_si512(weights + i / 2, (__m512i)pair);
  }
  _mm512_store_ps(sum, total);
  return _mm512_cvtss_f32(alpha);
}

template <int kRows>
LOOPSERVE_BF16_INLINE void RowTileOf(const RowTile& tile) {
  Scores<kRows>(tile);
  const auto n = static_cast<size_t>(PaddedKeys(tile.n_keys));
  alignas(64) uint32_t weights[kTileRows * kMaxTileKeys / 2];
  float alpha[kTileRows];
  for (int r = 0; r < kRows; ++r) {
    float* scores = tile.scores + r * kMaxTileKeys;
    if (tile.masked) {
      for (int i = 0; i < tile.begin[r]; ++i) scores[i] = -HUGE_VALF;
    }
    const int end = tile.masked ? tile.end[r] : tile.n_keys;
    for (int i = end; i < static_cast<int>(n); ++i) scores[i] = -HUGE_VALF;
    for (int i = 0; i < tile.n_excluded; ++i) scores[tile.excluded[i]] = -HUGE_VALF;
    alpha[r] = SoftmaxRow(scores, n, weights + r * kMaxTileKeys / 2, tile.max + r, tile.sum + r * kSumLanes);
  }
  AddValues<kRows>(tile, weights, alpha);
}

LOOPSERVE_BF16 void ComputeRowTile(const RowTile& tile) {
  switch (tile.n_rows) {
    case 1:
      return RowTileOf<1>(tile);
    case 2:
      return RowTileOf<2>(tile);
    case 3:
      return RowTileOf<3>(tile);
    case 4:
      return RowTileOf<4>(tile);
    case 5:
      return RowTileOf<5>(tile);
    default:
      return RowTileOf<6>(tile);
  }
}

LOOPSERVE_BF16 void ScoreRows(const RowTile& tile) {
  switch (tile.n_rows) {
    case 1:
      return Scores<1>(tile);
    case 2:
      return Scores<2>(tile);
    case 3:
      return Scores<3>(tile);
    case 4:
      return Scores<4>(tile);
    case 5:
      return Scores<5>(tile);
    default:
      return Scores<6>(tile);
  }
}

LOOPSERVE_BF16 void LoadQuery(const float* source, size_t head_dim, float scale, std::byte* target) {
  const __m256 factor = _mm256_set1_ps(scale);
  for (size_t i = 0; i < head_dim; i += 8) {
    const __m128bh row = _mm256_cvtneps_pbh(_mm256_mul_ps(_mm256_loadu_ps(source + i), factor));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target + 2 * i), (__m128i)row);
  }
}

/// A cache row less `center` as bf16 [n]; center: f32 [n].
LOOPSERVE_BF16_INLINE void ReadRow(KvType type, const std::byte* row, const float* __restrict center, size_t n,
                                   uint16_t* __restrict target) {
  if (type == KvType::kF16) {
    for (size_t i = 0; i < n; i += 8) {
      const __m256 x = _mm256_sub_ps(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 2 * i))),
                                     _mm256_loadu_ps(center + i));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(target + i), (__m128i)_mm256_cvtneps_pbh(x));
    }
    return;
  }
  for (size_t i = 0; i < n; i += 16) {
    const std::byte* block = row + i / 32 * 34;
    uint16_t scale_bits;
    std::memcpy(&scale_bits, block, sizeof(scale_bits));
    const __m512 scale = _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<int16_t>(scale_bits)));
    const __m128i q = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2 + i % 32));
    const __m512 x = _mm512_fmsub_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), scale, _mm512_loadu_ps(center + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + i), (__m256i)_mm512_cvtneps_pbh(x));
  }
}

// bf16 rows [4][n] to columns of pairs: target[i * kPackGroupKeys + r] = pair i of row r
LOOPSERVE_BF16_INLINE void Transpose4(const uint16_t* __restrict rows, size_t row_stride, size_t n,
                                      uint32_t* __restrict target) {
  for (size_t i = 0; i < n; i += 8, target += 4 * kPackGroupKeys) {
    const __m128i r0 = _mm_load_si128(reinterpret_cast<const __m128i*>(rows + i));
    const __m128i r1 = _mm_load_si128(reinterpret_cast<const __m128i*>(rows + row_stride + i));
    const __m128i r2 = _mm_load_si128(reinterpret_cast<const __m128i*>(rows + 2 * row_stride + i));
    const __m128i r3 = _mm_load_si128(reinterpret_cast<const __m128i*>(rows + 3 * row_stride + i));
    const __m128i low01 = _mm_unpacklo_epi32(r0, r1);
    const __m128i low23 = _mm_unpacklo_epi32(r2, r3);
    const __m128i high01 = _mm_unpackhi_epi32(r0, r1);
    const __m128i high23 = _mm_unpackhi_epi32(r2, r3);
    auto* out = reinterpret_cast<__m128i*>(target);
    constexpr size_t kStride = kPackGroupKeys / 4;
    _mm_store_si128(out, _mm_unpacklo_epi64(low01, low23));
    _mm_store_si128(out + kStride, _mm_unpackhi_epi64(low01, low23));
    _mm_store_si128(out + 2 * kStride, _mm_unpacklo_epi64(high01, high23));
    _mm_store_si128(out + 3 * kStride, _mm_unpackhi_epi64(high01, high23));
  }
}

// target[i] = the pair (even[i], odd[i]), n a multiple of 16
LOOPSERVE_BF16_INLINE void Interleave(const uint16_t* even, const uint16_t* odd, size_t n, uint32_t* target) {
  for (size_t i = 0; i < n; i += 16) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(even + i)));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(odd + i)));
    _mm512_store_si512(target + i, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
}

/// What the keys of a head have in common: per element the mean of up to kSampledKeys of them, evenly spaced, where it
/// is larger than their spread, else 0. The softmax does not change when every key loses the same vector, but the bits
/// that the vector takes of a bf16 are free for what tells the keys apart. Measured on 2,500 tokens, mean KL to exact
/// arithmetic: Qwen2.5-Coder-0.5B, whose projection has a large bias, 3.7e-4 before and 1.5e-4 after;
/// SmolLM2-135M 1.7e-4 and 1.5e-4. Depends on the view alone, so that all ranges of a head agree.
void KeyCenter(const KvHeadView& kv, float* __restrict center) {
  constexpr int64_t kSampledKeys = 512;
  const int64_t step = (kv.n_keys + kSampledKeys - 1) / kSampledKeys;
  float row[kMaxHeadDim];
  float squares[kMaxHeadDim] = {};
  std::fill_n(center, kv.head_dim, 0.0f);
  float n = 0;
  for (int64_t t = 0; t < kv.n_keys; t += step, n += 1) {
    LoadKvRow(kv.type, kv.Key(t), kv.head_dim, row);
    for (int i = 0; i < kv.head_dim; ++i) {
      center[i] += row[i];
      squares[i] += row[i] * row[i];
    }
  }
  for (int i = 0; i < kv.head_dim; ++i) {
    center[i] /= n;
    const float variance = squares[i] / n - center[i] * center[i];
    if (!(center[i] * center[i] > variance)) center[i] = 0;
  }
}

LOOPSERVE_BF16 void Pack(const KvHeadView& kv, const int32_t* index, int64_t first_key, int64_t last_key,
                         std::byte* keys, std::byte* values) {
  const auto dim = static_cast<size_t>(kv.head_dim);
  const size_t padded_dim = PaddedHeadDim(kv.head_dim);
  float key_center[kMaxHeadDim];
  KeyCenter(kv, key_center);
  static constexpr float kNoCenter[kMaxHeadDim] = {};
  alignas(64) uint16_t key_rows[4][kMaxHeadDim];
  alignas(64) uint16_t value_rows[4][kMaxHeadDim] = {};  // zero beyond head_dim for good
  for (int64_t t = first_key; t < PaddedKeys(last_key); t += 4) {
    for (int64_t r = 0; r < 4; ++r) {
      if (t + r < last_key) {
        const int64_t source = index == nullptr ? t + r : index[t + r];
        ReadRow(kv.type, kv.Key(source), key_center, dim, key_rows[r]);
        ReadRow(kv.type, kv.Value(source), kNoCenter, dim, value_rows[r]);
      } else {
        std::memset(key_rows[r], 0, dim * 2);
        std::memset(value_rows[r], 0, dim * 2);
      }
    }
    const auto group = static_cast<size_t>(t / kPackGroupKeys);
    const auto lane = static_cast<size_t>(t % kPackGroupKeys);
    Transpose4(key_rows[0], kMaxHeadDim, dim,
               reinterpret_cast<uint32_t*>(keys) + group * kPackGroupKeys * dim / 2 + lane);
    uint32_t* pairs = reinterpret_cast<uint32_t*>(values) + static_cast<size_t>(t) / 2 * padded_dim;
    Interleave(value_rows[0], value_rows[1], padded_dim, pairs);
    Interleave(value_rows[2], value_rows[3], padded_dim, pairs + padded_dim);
  }
}

}  // namespace

const PrefillKernels& Bf16PrefillKernels() {
  LS_CHECK(CpuHasNativeBf16());
  static constexpr PrefillKernels kKernels = {Pack, LoadQuery, ComputeRowTile, ScoreRows, KeyCenter};
  return kKernels;
}

}  // namespace attention_internal
}  // namespace loopserve

#else  // no AVX512_BF16 to compile for

namespace loopserve {

bool CpuHasNativeBf16() { return false; }

namespace attention_internal {
const PrefillKernels& Bf16PrefillKernels() {
  LS_CHECK(CpuHasNativeBf16());
  return F32PrefillKernels();
}
}  // namespace attention_internal
}  // namespace loopserve

#endif
