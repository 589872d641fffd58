// Prefill arithmetic in f32, for every SIMD target.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "src/kernels/attention_tiles.h"
#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/attention_prefill_f32.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "src/kernels/exp2-inl.h"
#include "src/kernels/kv_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {

using attention_internal::kMaxTileKeys;
using attention_internal::kSumLanes;
using attention_internal::kTileRows;
using attention_internal::RowTile;

using Wide = hn::CappedTag<float, 16>;
using WideVec = hn::Vec<Wide>;
inline constexpr size_t kLanes = hn::MaxLanes(Wide());
// 6 x 4 accumulators, 4 operands and a broadcast need 29 registers.
inline constexpr int kVecs = HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON ? 4 : 2;

/// c[r][:] = alpha[r] * c[r][:] + sum over k of a[r][k] * b[k][:] for kRows rows and kCols vectors of columns; alpha
/// null: c is not read. Strides in floats.
template <int kRows, int kCols>
HWY_NOINLINE void Multiply(const float* HWY_RESTRICT a, size_t a_stride, const float* HWY_RESTRICT b, size_t b_stride,
                           size_t steps, float* HWY_RESTRICT c, size_t c_stride, const float* HWY_RESTRICT alpha) {
  const Wide d;
  WideVec sum[kRows][kCols];
  LOOPSERVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOOPSERVE_UNROLL
    for (int j = 0; j < kCols; ++j) {
      sum[r][j] =
          alpha == nullptr ? hn::Zero(d) : hn::Mul(hn::Set(d, alpha[r]), hn::LoadU(d, c + r * c_stride + j * kLanes));
    }
  }
  for (size_t k = 0; k < steps; ++k, b += b_stride) {
    WideVec right[kCols];
    LOOPSERVE_UNROLL
    for (int j = 0; j < kCols; ++j) right[j] = hn::LoadU(d, b + j * kLanes);
    LOOPSERVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const WideVec left = hn::Set(d, a[r * a_stride + k]);
      LOOPSERVE_UNROLL
      for (int j = 0; j < kCols; ++j) sum[r][j] = hn::MulAdd(left, right[j], sum[r][j]);
    }
  }
  LOOPSERVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    LOOPSERVE_UNROLL
    for (int j = 0; j < kCols; ++j) hn::StoreU(sum[r][j], d, c + r * c_stride + j * kLanes);
  }
}

template <int kRows>
HWY_INLINE void Scores(const RowTile& tile) {
  const auto* q = reinterpret_cast<const float*>(tile.q);
  for (int key = 0; key < tile.n_keys; key += kPackGroupKeys) {
    const float* keys = reinterpret_cast<const float*>(tile.k) + static_cast<size_t>(key) * tile.head_dim;
    for (size_t j = 0; j < kPackGroupKeys; j += kVecs * kLanes) {
      Multiply<kRows, kVecs>(q, tile.head_dim, keys + j, kPackGroupKeys, tile.head_dim, tile.scores + key + j,
                             kMaxTileKeys, nullptr);
    }
  }
}

template <int kRows>
HWY_INLINE void AddValues(const RowTile& tile, const float* alpha) {
  const size_t n = tile.padded_dim;
  const auto steps = static_cast<size_t>(tile.n_keys);
  const auto* v = reinterpret_cast<const float*>(tile.v);
  size_t j = 0;
  for (; j + kVecs * kLanes <= n; j += kVecs * kLanes) {
    Multiply<kRows, kVecs>(tile.scores, kMaxTileKeys, v + j, n, steps, tile.out + j, n, alpha);
  }
  const size_t rest = (n - j) / kLanes;
  if (rest == 1) Multiply<kRows, 1>(tile.scores, kMaxTileKeys, v + j, n, steps, tile.out + j, n, alpha);
  if constexpr (kVecs == 4) {
    if (rest == 2) Multiply<kRows, 2>(tile.scores, kMaxTileKeys, v + j, n, steps, tile.out + j, n, alpha);
    if (rest == 3) Multiply<kRows, 3>(tile.scores, kMaxTileKeys, v + j, n, steps, tile.out + j, n, alpha);
  }
}

/// scores to weights in place for keys [0, n); updates the row's maximum and sum, returns the factor for what came
/// before. n is a multiple of kPackGroupKeys.
HWY_INLINE float SoftmaxRow(float* HWY_RESTRICT scores, size_t n, float* max, float* HWY_RESTRICT sum) {
  const Wide d;
  const hn::CappedTag<float, 4> narrow;
  WideVec largest[4];
  LOOPSERVE_UNROLL
  for (int j = 0; j < 4; ++j) largest[j] = hn::Set(d, *max);
  for (size_t i = 0; i < n; i += 4 * kLanes) {
    LOOPSERVE_UNROLL
    for (int j = 0; j < 4; ++j) largest[j] = hn::Max(largest[j], hn::LoadU(d, scores + i + j * kLanes));
  }
  const WideVec all = hn::Max(hn::Max(largest[0], largest[1]), hn::Max(largest[2], largest[3]));
  const float new_max = hn::GetLane(hn::MaxOfLanes(d, all));
  const float alpha = hn::GetLane(Exp2NonPositive(narrow, hn::Set(narrow, *max - new_max)));
  *max = new_max;

  const WideVec shift = hn::Set(d, new_max);
  constexpr int kSumVecs = static_cast<int>(kSumLanes / kLanes);
  WideVec total[kSumVecs];
  LOOPSERVE_UNROLL
  for (int j = 0; j < kSumVecs; ++j) total[j] = hn::Mul(hn::LoadU(d, sum + j * kLanes), hn::Set(d, alpha));
  for (size_t i = 0; i < n; i += kSumLanes) {
    LOOPSERVE_UNROLL
    for (int j = 0; j < kSumVecs; ++j) {
      const WideVec weight = Exp2NonPositive(d, hn::Sub(hn::LoadU(d, scores + i + j * kLanes), shift));
      total[j] = hn::Add(total[j], weight);
      hn::StoreU(weight, d, scores + i + j * kLanes);
    }
  }
  LOOPSERVE_UNROLL
  for (int j = 0; j < kSumVecs; ++j) hn::StoreU(total[j], d, sum + j * kLanes);
  return alpha;
}

template <int kRows>
HWY_INLINE void RowTileOf(const RowTile& tile) {
  Scores<kRows>(tile);
  const auto n = static_cast<size_t>(PaddedKeys(tile.n_keys));
  float alpha[kTileRows];
  for (int r = 0; r < kRows; ++r) {
    float* scores = tile.scores + r * kMaxTileKeys;
    if (tile.masked) {
      for (int i = 0; i < tile.begin[r]; ++i) scores[i] = -HUGE_VALF;
    }
    const int end = tile.masked ? tile.end[r] : tile.n_keys;
    for (int i = end; i < static_cast<int>(n); ++i) scores[i] = -HUGE_VALF;
    for (int i = 0; i < tile.n_excluded; ++i) scores[tile.excluded[i]] = -HUGE_VALF;
    alpha[r] = SoftmaxRow(scores, n, tile.max + r, tile.sum + r * kSumLanes);
  }
  AddValues<kRows>(tile, alpha);
}

void ComputeRowTile(const RowTile& tile) {
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

void ScoreRows(const RowTile& tile) {
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

void LoadQuery(const float* source, size_t head_dim, float scale, std::byte* target) {
  auto* row = reinterpret_cast<float*>(target);
  for (size_t i = 0; i < head_dim; ++i) row[i] = source[i] * scale;
}

// rows [4][n] to columns: target[i * kPackGroupKeys + r] = rows[r][i]
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void Transpose4(const float* HWY_RESTRICT rows, size_t row_stride, size_t n, float* HWY_RESTRICT target) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t r = 0; r < 4; ++r) target[i * kPackGroupKeys + r] = rows[r * row_stride + i];
  }
}
#else
HWY_INLINE void Transpose4(const float* HWY_RESTRICT rows, size_t row_stride, size_t n, float* HWY_RESTRICT target) {
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> d64;
  for (size_t i = 0; i < n; i += 4) {
    const auto r0 = hn::LoadU(d, rows + i);
    const auto r1 = hn::LoadU(d, rows + row_stride + i);
    const auto r2 = hn::LoadU(d, rows + 2 * row_stride + i);
    const auto r3 = hn::LoadU(d, rows + 3 * row_stride + i);
    const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
    const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
    const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
    float* out = target + i * kPackGroupKeys;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, low01, low23)), d, out);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23)), d, out + kPackGroupKeys);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, high01, high23)), d, out + 2 * kPackGroupKeys);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23)), d, out + 3 * kPackGroupKeys);
  }
}
#endif

void Pack(const KvHeadView& kv, const int32_t* index, int64_t first_key, int64_t last_key, std::byte* keys,
          std::byte* values) {
  const auto dim = static_cast<size_t>(kv.head_dim);
  const size_t padded_dim = attention_internal::PaddedHeadDim(kv.head_dim);
  alignas(64) float rows[4][kMaxHeadDim];
  for (int64_t t = first_key; t < PaddedKeys(last_key); t += 4) {
    for (int64_t r = 0; r < 4; ++r) {
      float* value = reinterpret_cast<float*>(values) + static_cast<size_t>(t + r) * padded_dim;
      if (t + r < last_key) {
        const int64_t source = index == nullptr ? t + r : index[t + r];
        ReadKvRow(kv.type, kv.Key(source), dim, rows[r]);
        ReadKvRow(kv.type, kv.Value(source), dim, value);
        std::memset(value + dim, 0, (padded_dim - dim) * sizeof(float));
      } else {
        std::memset(rows[r], 0, dim * sizeof(float));
        std::memset(value, 0, padded_dim * sizeof(float));
      }
    }
    const auto group = static_cast<size_t>(t / kPackGroupKeys);
    const auto lane = static_cast<size_t>(t % kPackGroupKeys);
    Transpose4(rows[0], kMaxHeadDim, dim, reinterpret_cast<float*>(keys) + group * kPackGroupKeys * dim + lane);
  }
}

void NoKeyCenter(const KvHeadView& kv, float* center) { std::fill_n(center, kv.head_dim, 0.0f); }

const attention_internal::PrefillKernels* GetKernels() {
  static constexpr attention_internal::PrefillKernels kKernels = {Pack, LoadQuery, ComputeRowTile, ScoreRows,
                                                                  NoKeyCenter};
  return &kKernels;
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve::attention_internal {
HWY_EXPORT(GetKernels);
const PrefillKernels& F32PrefillKernels() { return *HWY_DYNAMIC_DISPATCH(GetKernels)(); }
}  // namespace loopserve::attention_internal
#endif  // HWY_ONCE
