// Decode attention: few rows over a long cache, so the time goes into reading it. Each thread takes a range of keys and
// reads every key and value of it once, for all rows and all query heads of the group; the merge weighs the parts.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "src/kernels/attention.h"
#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/attention_decode.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "src/base/check.h"
#include "src/kernels/exp2-inl.h"
#include "src/kernels/kv_load-inl.h"

#ifndef LOOPSERVE_KERNELS_ATTENTION_DECODE_ONCE_
#define LOOPSERVE_KERNELS_ATTENTION_DECODE_ONCE_
namespace loopserve::decode_internal {

/// A partial result: the running maximum (log2 units), the sum of weights, and from kHeader on the weighted values.
inline constexpr size_t kHeader = kKeyListHeader;
inline size_t PartialFloats(int head_dim) { return kHeader + (static_cast<size_t>(head_dim) + 15) / 16 * 16; }

struct KeyRange {
  int64_t begin;
  int64_t end;
};

/// The keys of one of n_parts equal shares of what any row attends, in steps of kAlignKeys.
inline KeyRange PartRange(const AttentionProblem& problem, int part, int n_parts) {
  constexpr int64_t kAlignKeys = 16;
  const int64_t begin = problem.window > 0 ? std::max<int64_t>(0, problem.first_position - problem.window + 1) : 0;
  const int64_t end = problem.first_position + problem.n_rows;
  const int64_t share = ((end - begin + n_parts - 1) / n_parts + kAlignKeys - 1) / kAlignKeys * kAlignKeys;
  return {std::min(end, begin + part * share), std::min(end, begin + (part + 1) * share)};
}

}  // namespace loopserve::decode_internal
#endif  // LOOPSERVE_KERNELS_ATTENTION_DECODE_ONCE_

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {

using decode_internal::KeyRange;
using decode_internal::kHeader;

/// Keys of one step of the online softmax, at most.
inline constexpr int kChunkKeys = 64;
/// Their key rows and their value rows are as many bytes each: both stay in L1 from the prefetch to the last use.
inline constexpr size_t kChunkBytes = 8192;
/// Queries that share one pass over the registers.
inline constexpr int kMaxQueries = HWY_TARGET <= HWY_AVX3 ? 7 : 4;

struct Chunk {
  int n_keys = 0;
  int64_t first_key = 0;
  const std::byte* keys[kChunkKeys];  // beyond n_keys, up to a multiple of 4: the last key again
  const std::byte* values[kChunkKeys];
};

/// Cache rows to fetch ahead, a line of them with every line that is worked on; left alone, the hardware loses its way
/// between the streams of keys and values. Measured on Zen 4, f16, reading 64 MiB of cache, one thread, GB/s (head_dim
/// 64 and 3 queries, 64 and 7, 256 and 4): without 11.5, 5.8, 7.3; whole rows at once 12.8, 8.8, 7.6;
/// lines 12.2, 9.4, 9.5.
struct Ahead {
  const std::byte* const* rows = nullptr;
  int n_rows = 0;

  /// The cache line at `offset` of row `index`.
  HWY_INLINE void Fetch(int index, size_t offset) const {
    if (index < n_rows) hwy::Prefetch(rows[index] + offset);
  }
};

struct Query {
  const float* q;
  float* partial;  // kHeader + head_dim
  int64_t key_begin;
  int64_t key_end;
};

HWY_INLINE void FindRows(const KvHeadView& kv, int64_t begin, int64_t end, Chunk& chunk) {
  chunk.first_key = begin;
  chunk.n_keys = static_cast<int>(end - begin);
  int i = 0;
  for (int64_t t = begin; t < end;) {
    const int64_t in_block = t % kv.block_tokens;
    const int64_t run_end = std::min(end, t - in_block + kv.block_tokens);
    const std::byte* base = kv.blocks[t / kv.block_tokens] + static_cast<size_t>(in_block) * kv.row_bytes;
    const std::byte* key = base + kv.key_offset_bytes;
    const std::byte* value = base + kv.value_offset_bytes;
    for (; t < run_end; ++t, ++i, key += kv.row_bytes, value += kv.row_bytes) {
      chunk.keys[i] = key;
      chunk.values[i] = value;
    }
  }
  for (; i % 4 != 0; ++i) chunk.keys[i] = chunk.keys[i - 1];
}

/// Four vectors are summed over their lanes at once, which is cheaper by half than one by one: AddPair, twice, then
/// StoreSums, which stores the four sums times `factor`.
#if HWY_TARGET == HWY_SCALAR
struct ScalarPair {
  float a, b;
};
template <class D, class V = hn::Vec<D>>
HWY_INLINE ScalarPair AddPair(D, V a, V b) {
  return {hn::GetLane(a), hn::GetLane(b)};
}
template <class D>
HWY_INLINE void StoreSums(D, ScalarPair ab, ScalarPair ce, float factor, float* HWY_RESTRICT target) {
  target[0] = ab.a * factor;
  target[1] = ab.b * factor;
  target[2] = ce.a * factor;
  target[3] = ce.b * factor;
}
#else
template <class D, class V = hn::Vec<D>>
HWY_INLINE V AddPair(D d, V a, V b) {
  return hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
}
/// Adds the 4-lane blocks of v up.
template <class D>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> AddBlocks(D d, hn::Vec<D> v) {
  (void)d;
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return AddBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE void StoreSums(D d, V ab, V ce, float factor, float* HWY_RESTRICT target) {
  const hn::FixedTag<float, 4> d4;
  const hn::Repartition<double, D> d64;
  const auto low = hn::BitCast(d, hn::InterleaveLower(d64, hn::BitCast(d64, ab), hn::BitCast(d64, ce)));
  const auto high = hn::BitCast(d, hn::InterleaveUpper(d64, hn::BitCast(d64, ab), hn::BitCast(d64, ce)));
  hn::StoreU(hn::Mul(hn::Set(d4, factor), AddBlocks(d, hn::Add(low, high))), d4, target);
}
#endif

/// scores[query][key] = scale * q . k, four keys at a time.
template <class Reader, int kQueries, class D>
HWY_NOINLINE void Scores(D d, const Query* queries, const Chunk& chunk, const Ahead& ahead, size_t head_dim,
                         float scale, float* HWY_RESTRICT scores) {
  using V = hn::Vec<D>;
  using Pair = decltype(AddPair(d, V(), V()));
  constexpr size_t kLanes = hn::MaxLanes(D());
  constexpr int kVecs = Reader::kBlock == 0 ? 1 : static_cast<int>(Reader::kBlock / kLanes);
  // As many keys as the registers hold sums for.
  constexpr int kKeys = HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON ? 4 : 2;
  for (int t = 0; t < chunk.n_keys; t += 4) {
    Pair pairs[kQueries][2];
    LOOPSERVE_UNROLL
    for (int first = 0; first < 4; first += kKeys) {
      const std::byte* const* keys = chunk.keys + t + first;
      V sum[kQueries][kKeys];
      LOOPSERVE_UNROLL
      for (int r = 0; r < kQueries; ++r) {
        LOOPSERVE_UNROLL
        for (int k = 0; k < kKeys; ++k) sum[r][k] = hn::Zero(d);
      }
      for (size_t i = 0; i < head_dim; i += kVecs * kLanes) {
        typename Reader::template Scale<D> scales[kKeys];
        LOOPSERVE_UNROLL
        for (int k = 0; k < kKeys; ++k) scales[k] = Reader::LoadScale(d, keys[k], i);
        const size_t offset = Reader::Offset(i);
        if (i % 32 == 0) {
          LOOPSERVE_UNROLL
          for (int k = 0; k < kKeys; ++k) ahead.Fetch(t + first + k, offset);
        }
        LOOPSERVE_UNROLL
        for (int j = 0; j < kVecs; ++j) {
          V key[kKeys];
          LOOPSERVE_UNROLL
          for (int k = 0; k < kKeys; ++k) {
            key[k] = Reader::Load(d, scales[k], keys[k], offset + j * kLanes * Reader::kElementBytes);
          }
          LOOPSERVE_UNROLL
          for (int r = 0; r < kQueries; ++r) {
            const V q = hn::LoadU(d, queries[r].q + i + j * kLanes);
            LOOPSERVE_UNROLL
            for (int k = 0; k < kKeys; ++k) sum[r][k] = hn::MulAdd(q, key[k], sum[r][k]);
          }
        }
      }
      LOOPSERVE_UNROLL
      for (int r = 0; r < kQueries; ++r) {
        LOOPSERVE_UNROLL
        for (int k = 0; k < kKeys; k += 2) pairs[r][(first + k) / 2] = AddPair(d, sum[r][k], sum[r][k + 1]);
      }
    }
    LOOPSERVE_UNROLL
    for (int r = 0; r < kQueries; ++r) StoreSums(d, pairs[r][0], pairs[r][1], scale, scores + r * kChunkKeys + t);
  }
}

/// Scores to weights in place; updates maximum and sum, returns the factor for what came before.
HWY_INLINE float Softmax(const Query& query, const Chunk& chunk, float* HWY_RESTRICT scores) {
  const hn::CappedTag<float, 16> d;
  constexpr int kStep = static_cast<int>(hn::MaxLanes(decltype(d)()));
  const int begin = static_cast<int>(std::clamp<int64_t>(query.key_begin - chunk.first_key, 0, chunk.n_keys));
  const int end = static_cast<int>(std::clamp<int64_t>(query.key_end - chunk.first_key, 0, chunk.n_keys));
  for (int i = 0; i < begin; ++i) scores[i] = -HUGE_VALF;
  for (int i = end; i % kStep != 0 || i < chunk.n_keys; ++i) scores[i] = -HUGE_VALF;
  float* max = query.partial;
  float* sum = query.partial + 1;
  auto largest = hn::Set(d, *max);
  for (int i = 0; i < chunk.n_keys; i += kStep) largest = hn::Max(largest, hn::LoadU(d, scores + i));
  largest = hn::MaxOfLanes(d, largest);
  const float alpha = hn::GetLane(Exp2NonPositive(d, hn::Sub(hn::Set(d, *max), largest)));
  *max = hn::GetLane(largest);
  auto total = hn::Zero(d);
  for (int i = 0; i < chunk.n_keys; i += kStep) {
    const auto weight = Exp2NonPositive(d, hn::Sub(hn::LoadU(d, scores + i), largest));
    total = hn::Add(total, weight);
    hn::StoreU(weight, d, scores + i);
  }
  *sum = *sum * alpha + hn::GetLane(hn::SumOfLanes(d, total));
  return alpha;
}

/// partial[query] = alpha[query] * partial[query] + sum over keys of weight * v, for kCols vectors from column on.
template <class Reader, int kQueries, int kCols, class D>
HWY_NOINLINE void AddValues(D d, const Query* queries, const Chunk& chunk, const Ahead& ahead, size_t column,
                            const float* weights, const float* alpha) {
  using V = hn::Vec<D>;
  constexpr size_t kLanes = hn::MaxLanes(D());
  size_t offsets[kCols];
  LOOPSERVE_UNROLL
  for (int j = 0; j < kCols; ++j) offsets[j] = Reader::Offset(column + j * kLanes);
  V sum[kQueries][kCols];
  LOOPSERVE_UNROLL
  for (int r = 0; r < kQueries; ++r) {
    const float* out = queries[r].partial + kHeader + column;
    LOOPSERVE_UNROLL
    for (int j = 0; j < kCols; ++j) sum[r][j] = hn::Mul(hn::Set(d, alpha[r]), hn::LoadU(d, out + j * kLanes));
  }
  for (int t = 0; t < chunk.n_keys; ++t) {
    for (size_t i = 0; i < kCols * kLanes * Reader::kElementBytes; i += 64) ahead.Fetch(t, offsets[0] + i);
    const std::byte* row = chunk.values[t];
    V v[kCols];
    typename Reader::template Scale<D> scale;
    LOOPSERVE_UNROLL
    for (int j = 0; j < kCols; ++j) {
      if (Reader::kBlock == 0 || j * kLanes % std::max<size_t>(1, Reader::kBlock) == 0) {
        scale = Reader::LoadScale(d, row, column + j * kLanes);
      }
      v[j] = Reader::Load(d, scale, row, offsets[j]);
    }
    LOOPSERVE_UNROLL
    for (int r = 0; r < kQueries; ++r) {
      const V weight = hn::Set(d, weights[r * kChunkKeys + t]);
      LOOPSERVE_UNROLL
      for (int j = 0; j < kCols; ++j) sum[r][j] = hn::MulAdd(weight, v[j], sum[r][j]);
    }
  }
  LOOPSERVE_UNROLL
  for (int r = 0; r < kQueries; ++r) {
    float* out = queries[r].partial + kHeader + column;
    LOOPSERVE_UNROLL
    for (int j = 0; j < kCols; ++j) hn::StoreU(sum[r][j], d, out + j * kLanes);
  }
}

template <class Reader, int kQueries, class D>
HWY_INLINE void AttendChunk(D d, const Query* queries, const Chunk& chunk, Ahead values, Ahead next_keys,
                            size_t head_dim, float scale) {
  alignas(64) float scores[kQueries * kChunkKeys];
  Scores<Reader, kQueries>(d, queries, chunk, values, head_dim, scale, scores);
  float alpha[kQueries];
  for (int r = 0; r < kQueries; ++r) alpha[r] = Softmax(queries[r], chunk, scores + r * kChunkKeys);
  constexpr int kCols = HWY_TARGET <= HWY_AVX3 || kQueries <= 2 ? 4 : 2;
  size_t column = 0;
  for (; column + kCols * hn::Lanes(d) <= head_dim; column += kCols * hn::Lanes(d)) {
    AddValues<Reader, kQueries, kCols>(d, queries, chunk, next_keys, column, scores, alpha);
  }
  for (; column < head_dim; column += hn::Lanes(d)) {
    AddValues<Reader, kQueries, 1>(d, queries, chunk, next_keys, column, scores, alpha);
  }
}

/// One KV head's share of keys for `n` of its queries.
template <class Reader, class D>
HWY_INLINE void AttendQueries(D d, const Query* queries, int n, const Chunk& chunk, const Ahead& values,
                              const Ahead& next_keys, size_t head_dim, float scale) {
  switch (n) {
    case 1:
      return AttendChunk<Reader, 1>(d, queries, chunk, values, next_keys, head_dim, scale);
    case 2:
      return AttendChunk<Reader, 2>(d, queries, chunk, values, next_keys, head_dim, scale);
    case 3:
      return AttendChunk<Reader, 3>(d, queries, chunk, values, next_keys, head_dim, scale);
    case 4:
      return AttendChunk<Reader, 4>(d, queries, chunk, values, next_keys, head_dim, scale);
    default:
      break;
  }
  if constexpr (kMaxQueries > 4) {
    switch (n) {
      case 5:
        return AttendChunk<Reader, 5>(d, queries, chunk, values, next_keys, head_dim, scale);
      case 6:
        return AttendChunk<Reader, 6>(d, queries, chunk, values, next_keys, head_dim, scale);
      default:
        return AttendChunk<Reader, 7>(d, queries, chunk, values, next_keys, head_dim, scale);
    }
  }
}

template <class Reader, class D>
void DecodeHead(D d, const AttentionProblem& problem, int kv_head, KeyRange range, float* partials) {
  const int group = problem.n_heads / problem.n_kv_heads;
  const size_t stride = decode_internal::PartialFloats(problem.head_dim);
  const int64_t n_queries = problem.n_rows * group;
  const float scale = problem.scale * 1.44269504088896341f;
  const auto query_at = [&](int64_t index) {
    const int64_t row = index / group;
    const int64_t head = kv_head * int64_t{group} + index % group;
    const int64_t position = problem.first_position + row;
    Query query;
    query.q = problem.q + row * problem.q_row_stride + head * problem.head_dim;
    query.partial = partials + static_cast<size_t>(row * problem.n_heads + head) * stride;
    query.key_begin = problem.window > 0 ? std::max<int64_t>(0, position - problem.window + 1) : 0;
    query.key_end = position + 1;
    return query;
  };
  const KvHeadView& kv = problem.kv[kv_head];
  const auto most = static_cast<int64_t>(kChunkBytes / kv.row_bytes / 16 * 16);
  const int64_t step = std::clamp<int64_t>(most, 16, kChunkKeys);
  Chunk chunks[2];
  if (range.begin < range.end) FindRows(kv, range.begin, std::min(range.end, range.begin + step), chunks[0]);
  int current = 0;
  for (int64_t t = range.begin; t < range.end; t += step, current ^= 1) {
    const Chunk& chunk = chunks[current];
    Chunk& next = chunks[current ^ 1];
    next.n_keys = 0;
    if (t + step < range.end) FindRows(kv, t + step, std::min(range.end, t + 2 * step), next);
    for (int64_t i = 0; i < n_queries; i += kMaxQueries) {
      const int n = static_cast<int>(std::min<int64_t>(kMaxQueries, n_queries - i));
      Query queries[kMaxQueries];
      for (int r = 0; r < n; ++r) queries[r] = query_at(i + r);
      const Ahead values = {chunk.values, i == 0 ? chunk.n_keys : 0};
      const Ahead next_keys = {next.keys, i == 0 ? next.n_keys : 0};
      AttendQueries<Reader>(d, queries, n, chunk, values, next_keys, static_cast<size_t>(problem.head_dim), scale);
    }
  }
}

template <class Reader, class D>
void AttendList(D d, const KvHeadView& kv, const float* q, float scale, const int32_t* keys, int64_t n_keys,
                float* partial) {
  const Query query = {q, partial, 0, n_keys};
  Chunk chunk;
  for (int64_t t = 0; t < n_keys; t += kChunkKeys) {
    chunk.first_key = t;
    chunk.n_keys = static_cast<int>(std::min<int64_t>(kChunkKeys, n_keys - t));
    int i = 0;
    for (; i < chunk.n_keys; ++i) {
      chunk.keys[i] = kv.Key(keys[t + i]);
      chunk.values[i] = kv.Value(keys[t + i]);
    }
    for (; i % 4 != 0; ++i) chunk.keys[i] = chunk.keys[i - 1];
    const Ahead values = {chunk.values, chunk.n_keys};
    AttendChunk<Reader, 1>(d, &query, chunk, values, Ahead(), static_cast<size_t>(kv.head_dim), scale);
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

/// Calls body(d, reader) with the vectors and the reader that rows of this head are read with.
template <class Body>
HWY_INLINE void WithReader(const KvHeadView& kv, const Body& body) {
  const hn::CappedTag<float, 16> wide;
  if (kv.type == KvType::kQ8_0) return body(wide, Q8Reader());
  if (kv.head_dim % 16 == 0) return body(wide, F16Reader());
  body(hn::CappedTag<float, 8>(), F16Reader());
}

void ScoreAllKeys(const KvHeadView& kv, const float* const* q, int n_queries, float scale, int64_t n_keys,
                  float* scores, int64_t stride) {
  WithReader(kv, [&](auto d, auto reader)
                     HWY_ATTR { ScoreQueries<decltype(reader)>(d, kv, q, n_queries, scale, n_keys, scores, stride); });
}

void AttendKeys(const KvHeadView& kv, const float* q, float scale, const int32_t* keys, int64_t n_keys,
                float* partial) {
  WithReader(
      kv, [&](auto d, auto reader) HWY_ATTR { AttendList<decltype(reader)>(d, kv, q, scale, keys, n_keys, partial); });
}

void DecodePart(const AttentionProblem& problem, int part, int n_parts, float* partials) {
  const KeyRange range = decode_internal::PartRange(problem, part, n_parts);
  for (int kv_head = 0; kv_head < problem.n_kv_heads; ++kv_head) {
    WithReader(problem.kv[kv_head], [&](auto d, auto reader) HWY_ATTR {
      DecodeHead<decltype(reader)>(d, problem, kv_head, range, partials);
    });
  }
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve {
HWY_EXPORT(DecodePart);
HWY_EXPORT(AttendKeys);
HWY_EXPORT(ScoreAllKeys);

using decode_internal::kHeader;
using decode_internal::PartialFloats;

size_t DecodePartialBytes(const AttentionProblem& problem, int n_parts) {
  const auto queries = static_cast<size_t>(problem.n_rows) * static_cast<size_t>(problem.n_heads);
  return static_cast<size_t>(n_parts) * queries * PartialFloats(problem.head_dim) * sizeof(float);
}

void ScoreKeys(const KvHeadView& kv, const float* const* q, int n_queries, float scale, int64_t n_keys, float* scores,
               int64_t stride) {
  LS_CHECK(n_queries >= 1 && n_queries <= kMaxScoredQueries && n_keys <= kv.n_keys);
  HWY_DYNAMIC_DISPATCH(ScoreAllKeys)(kv, q, n_queries, scale * 1.44269504088896341f, n_keys, scores, stride);
}

size_t KeyListPartialFloats(int head_dim) { return PartialFloats(head_dim); }

void AttendKeyList(const KvHeadView& kv, const float* q, float scale, const int32_t* keys, int64_t n_keys,
                   float* partial) {
  std::fill_n(partial, PartialFloats(kv.head_dim), 0.0f);
  partial[0] = -FLT_MAX;
  HWY_DYNAMIC_DISPATCH(AttendKeys)(kv, q, scale * 1.44269504088896341f, keys, n_keys, partial);
}

void DecodeAttentionPartial(const AttentionProblem& problem, int part, int n_parts, std::byte* partials) {
  LS_CHECK(problem.head_dim % 8 == 0 && problem.head_dim <= kMaxHeadDim && part < n_parts);
  const size_t stride = PartialFloats(problem.head_dim);
  const auto queries = static_cast<size_t>(problem.n_rows) * static_cast<size_t>(problem.n_heads);
  float* own = reinterpret_cast<float*>(partials) + static_cast<size_t>(part) * queries * stride;
  std::fill_n(own, queries * stride, 0.0f);
  for (size_t i = 0; i < queries; ++i) own[i * stride] = -FLT_MAX;
  HWY_DYNAMIC_DISPATCH(DecodePart)(problem, part, n_parts, own);
}

void DecodeAttentionMerge(const AttentionProblem& problem, int n_parts, int head_begin, int head_end,
                          const std::byte* partials) {
  const size_t stride = PartialFloats(problem.head_dim);
  const auto queries = static_cast<size_t>(problem.n_rows) * static_cast<size_t>(problem.n_heads);
  for (int64_t row = 0; row < problem.n_rows; ++row) {
    for (int head = head_begin; head < head_end; ++head) {
      const float* first =
          reinterpret_cast<const float*>(partials) +
          (static_cast<size_t>(row) * static_cast<size_t>(problem.n_heads) + static_cast<size_t>(head)) * stride;
      float max = -FLT_MAX;
      for (int part = 0; part < n_parts; ++part)
        max = std::max(max, first[static_cast<size_t>(part) * queries * stride]);
      float sum = 0;
      for (int part = 0; part < n_parts; ++part) {
        const float* partial = first + static_cast<size_t>(part) * queries * stride;
        sum += std::exp2(partial[0] - max) * partial[1];
      }
      float* out = problem.out + row * problem.out_row_stride + int64_t{head} * problem.head_dim;
      std::fill_n(out, problem.head_dim, 0.0f);
      for (int part = 0; part < n_parts; ++part) {
        const float* partial = first + static_cast<size_t>(part) * queries * stride;
        const float weight = std::exp2(partial[0] - max) / sum;
        for (int i = 0; i < problem.head_dim; ++i) out[i] += weight * partial[kHeader + static_cast<size_t>(i)];
      }
    }
  }
}

}  // namespace loopserve
#endif  // HWY_ONCE
