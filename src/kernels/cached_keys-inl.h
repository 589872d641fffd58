// What the kernels that read the cache as it is stored have in common: a step of the online softmax over up to 64 keys
// for the query heads of a group. Included once per target by their translation units, never by others.
#if defined(LOOPSERVE_KERNELS_CACHED_KEYS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LOOPSERVE_KERNELS_CACHED_KEYS_INL_H_
#undef LOOPSERVE_KERNELS_CACHED_KEYS_INL_H_
#else
#define LOOPSERVE_KERNELS_CACHED_KEYS_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "src/kernels/attention.h"
#include "src/kernels/exp2-inl.h"
#include "src/kernels/key_list.h"
#include "src/kernels/kv_load-inl.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {

inline constexpr size_t kHeader = kKeyListHeader;

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

/// Calls body(d, reader) with the vectors and the reader that rows of this head are read with.
template <class Body>
HWY_INLINE void WithReader(const KvHeadView& kv, const Body& body) {
  const hn::CappedTag<float, 16> wide;
  if (kv.type == KvType::kQ8_0) return body(wide, Q8Reader());
  if (kv.head_dim % 16 == 0) return body(wide, F16Reader());
  body(hn::CappedTag<float, 8>(), F16Reader());
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // LOOPSERVE_KERNELS_CACHED_KEYS_INL_H_
