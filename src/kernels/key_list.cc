#include "src/kernels/key_list.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/key_list.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "src/base/check.h"
#include "src/kernels/cached_keys-inl.h"
#include "src/kernels/fetch_ahead.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {

/// Rows of keys[begin, end) of a list.
HWY_INLINE void FindListed(const KvHeadView& kv, const int32_t* keys, int64_t begin, int64_t end, Chunk& chunk) {
  chunk.first_key = begin;
  chunk.n_keys = static_cast<int>(end - begin);
  int i = 0;
  for (; i < chunk.n_keys; ++i) {
    chunk.keys[i] = kv.Key(keys[begin + i]);
    chunk.values[i] = kv.Value(keys[begin + i]);
  }
  for (; i % 4 != 0; ++i) chunk.keys[i] = chunk.keys[i - 1];
}

template <class Reader, class D>
void AddList(D d, const KvHeadView& kv, const float* q, int n_queries, float scale, const int32_t* keys, int64_t n_keys,
             float* partials, size_t stride) {
  const auto most = static_cast<int64_t>(kChunkBytes / kv.row_bytes / 16 * 16);
  const int64_t step = std::clamp<int64_t>(most, 16, kChunkKeys);
  Chunk chunks[2];
  FindListed(kv, keys, 0, std::min(n_keys, step), chunks[0]);
  int current = 0;
  for (int64_t t = 0; t < n_keys; t += step, current ^= 1) {
    const Chunk& chunk = chunks[current];
    Chunk& next = chunks[current ^ 1];
    next.n_keys = 0;
    if (t + step < n_keys) FindListed(kv, keys, t + step, std::min(n_keys, t + 2 * step), next);
    for (int i = 0; i < n_queries; i += kMaxQueries) {
      const int n = std::min(kMaxQueries, n_queries - i);
      Query queries[kMaxQueries];
      for (int r = 0; r < n; ++r) {
        queries[r] = {q + int64_t{i + r} * kv.head_dim, partials + static_cast<size_t>(i + r) * stride, 0, n_keys};
      }
      const Ahead values = {chunk.values, i == 0 ? chunk.n_keys : 0};
      const Ahead next_keys = {next.keys, i == 0 ? next.n_keys : 0};
      AttendQueries<Reader>(d, queries, n, chunk, values, next_keys, static_cast<size_t>(kv.head_dim), scale);
    }
  }
}

/// The columns of kVectors vectors from `column` on: partial = keep * partial + take * weights . rows.
template <int kVectors, class D>
HWY_INLINE void AddRowsOfColumns(D d, const float* HWY_RESTRICT rows, int64_t n_rows, size_t head_dim, size_t column,
                                 const float* HWY_RESTRICT weights, float keep, float take,
                                 float* HWY_RESTRICT partial) {
  float* target = partial + kHeader + column;
  hn::Vec<D> totals[kVectors];
  LOOPSERVE_UNROLL
  for (int j = 0; j < kVectors; ++j) {
    totals[j] = hn::Mul(hn::Set(d, keep), hn::LoadU(d, target + j * hn::Lanes(d)));
  }
  for (int64_t i = 0; i < n_rows; ++i) {
    const auto weight = hn::Set(d, take * weights[i]);
    const float* row = rows + static_cast<size_t>(i) * head_dim + column;
    LOOPSERVE_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      totals[j] = hn::MulAdd(weight, hn::LoadU(d, row + j * hn::Lanes(d)), totals[j]);
    }
  }
  LOOPSERVE_UNROLL
  for (int j = 0; j < kVectors; ++j) hn::StoreU(totals[j], d, target + j * hn::Lanes(d));
}

/// partial += weights . rows, the weights being relative to 2^max.
void AddRows(const float* HWY_RESTRICT rows, int64_t n_rows, size_t head_dim, const float* HWY_RESTRICT weights,
             float max, float* HWY_RESTRICT partial) {
  const hn::CappedTag<float, 8> d;
  float sum = 0;
  for (int64_t i = 0; i < n_rows; ++i) sum += weights[i];
  if (!(sum > 0)) return;
  const float larger = std::max(partial[0], max);
  const float keep = std::exp2(partial[0] - larger);
  const float take = std::exp2(max - larger);
  partial[0] = larger;
  partial[1] = partial[1] * keep + sum * take;
  size_t column = 0;
  const hn::CappedTag<float, 16> wide;
  constexpr int kVectors = 4;
  for (; column + kVectors * hn::Lanes(wide) <= head_dim; column += kVectors * hn::Lanes(wide)) {
    AddRowsOfColumns<kVectors>(wide, rows, n_rows, head_dim, column, weights, keep, take, partial);
  }
  for (; column < head_dim; column += hn::Lanes(d)) {
    AddRowsOfColumns<1>(d, rows, n_rows, head_dim, column, weights, keep, take, partial);
  }
}

template <class Reader, int kQueries, class D>
void ScoreRange(D d, const KvHeadView& kv, const float* const* q, float scale, int64_t n_keys, float* scores,
                int64_t stride) {
  Query queries[kQueries];
  for (int i = 0; i < kQueries; ++i) queries[i].q = q[i];
  alignas(64) float step[kQueries * kChunkKeys];
  Chunk chunk, next;
  FindRows(kv, 0, std::min<int64_t>(kChunkKeys, n_keys), chunk);
  for (int64_t t = 0; t < n_keys; t += kChunkKeys) {
    next.n_keys = 0;
    if (t + kChunkKeys < n_keys) FindRows(kv, t + kChunkKeys, std::min(n_keys, t + 2 * kChunkKeys), next);
    const Ahead ahead = {next.keys, next.n_keys};
    Scores<Reader, kQueries>(d, queries, chunk, ahead, static_cast<size_t>(kv.head_dim), scale, step);
    for (int i = 0; i < kQueries; ++i) std::copy_n(step + i * kChunkKeys, chunk.n_keys, scores + i * stride + t);
    chunk = next;
  }
}

template <class Reader, class D>
void ScoreQueries(D d, const KvHeadView& kv, const float* const* q, int n_queries, float scale, int64_t n_keys,
                  float* scores, int64_t stride) {
  switch (n_queries) {
    case 1:
      return ScoreRange<Reader, 1>(d, kv, q, scale, n_keys, scores, stride);
    case 2:
      return ScoreRange<Reader, 2>(d, kv, q, scale, n_keys, scores, stride);
    case 3:
      return ScoreRange<Reader, 3>(d, kv, q, scale, n_keys, scores, stride);
    default:
      return ScoreRange<Reader, 4>(d, kv, q, scale, n_keys, scores, stride);
  }
}

void ScoreAllKeys(const KvHeadView& kv, const float* const* q, int n_queries, float scale, int64_t n_keys,
                  float* scores, int64_t stride) {
  WithReader(kv, [&](auto d, auto reader)
                     HWY_ATTR { ScoreQueries<decltype(reader)>(d, kv, q, n_queries, scale, n_keys, scores, stride); });
}

void AddKeys(const KvHeadView& kv, const float* q, int n_queries, float scale, const int32_t* keys, int64_t n_keys,
             float* partials, size_t stride) {
  WithReader(kv, [&](auto d, auto reader) HWY_ATTR {
    AddList<decltype(reader)>(d, kv, q, n_queries, scale, keys, n_keys, partials, stride);
  });
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve {
namespace {

constexpr float kLog2E = 1.44269504088896341f;

}  // namespace

HWY_EXPORT(AddKeys);
HWY_EXPORT(AddRows);
HWY_EXPORT(ScoreAllKeys);

size_t KeyListPartialFloats(int head_dim) { return kKeyListHeader + (static_cast<size_t>(head_dim) + 15) / 16 * 16; }

void ClearPartials(int head_dim, int n_queries, float* partials) {
  const size_t stride = KeyListPartialFloats(head_dim);
  std::fill_n(partials, static_cast<size_t>(n_queries) * stride, 0.0f);
  for (int i = 0; i < n_queries; ++i) partials[static_cast<size_t>(i) * stride] = -FLT_MAX;
}

void AddKeyList(const KvHeadView& kv, const float* q, int n_queries, float scale, const int32_t* keys, int64_t n_keys,
                float* partials) {
  if (n_keys == 0) return;
  HWY_DYNAMIC_DISPATCH(AddKeys)
  (kv, q, n_queries, scale * kLog2E, keys, n_keys, partials, KeyListPartialFloats(kv.head_dim));
}

void FetchKeyList(const KvHeadView& kv, const int32_t* keys, int64_t n_keys) {
  for (int64_t i = 0; i < n_keys; ++i) {
    FetchAhead(kv.Key(keys[i]), kv.row_bytes);
    FetchAhead(kv.Value(keys[i]), kv.row_bytes);
  }
}

void AttendKeyList(const KvHeadView& kv, const float* q, float scale, const int32_t* keys, int64_t n_keys,
                   float* partial) {
  ClearPartials(kv.head_dim, 1, partial);
  AddKeyList(kv, q, 1, scale, keys, n_keys, partial);
}

void AddWeightedRows(const float* rows, int64_t n_rows, int head_dim, const float* weights, float max, float* partial) {
  HWY_DYNAMIC_DISPATCH(AddRows)(rows, n_rows, static_cast<size_t>(head_dim), weights, max, partial);
}

void ScoreKeys(const KvHeadView& kv, const float* const* q, int n_queries, float scale, int64_t n_keys, float* scores,
               int64_t stride) {
  LS_CHECK(n_queries >= 1 && n_queries <= kMaxScoredQueries && n_keys <= kv.n_keys);
  HWY_DYNAMIC_DISPATCH(ScoreAllKeys)(kv, q, n_queries, scale * kLog2E, n_keys, scores, stride);
}

}  // namespace loopserve
#endif  // HWY_ONCE
