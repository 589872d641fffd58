// Decode attention: few rows over a long cache, so the time goes into reading it. Each thread takes a range of keys and
// reads every key and value of it once, for all rows and all query heads of the group; the merge weighs the parts.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "src/kernels/attention.h"
#include "src/kernels/key_list.h"
#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/attention_decode.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "src/base/check.h"
#include "src/kernels/cached_keys-inl.h"

#ifndef LOOPSERVE_KERNELS_ATTENTION_DECODE_ONCE_
#define LOOPSERVE_KERNELS_ATTENTION_DECODE_ONCE_
namespace loopserve::decode_internal {

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

template <class Reader, class D>
void DecodeHead(D d, const AttentionProblem& problem, int kv_head, KeyRange range, float* partials) {
  const int group = problem.n_heads / problem.n_kv_heads;
  const size_t stride = KeyListPartialFloats(problem.head_dim);
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

size_t DecodePartialBytes(const AttentionProblem& problem, int n_parts) {
  const auto queries = static_cast<size_t>(problem.n_rows) * static_cast<size_t>(problem.n_heads);
  return static_cast<size_t>(n_parts) * queries * KeyListPartialFloats(problem.head_dim) * sizeof(float);
}

void DecodeAttentionPartial(const AttentionProblem& problem, int part, int n_parts, std::byte* partials) {
  LS_CHECK(problem.head_dim % 8 == 0 && problem.head_dim <= kMaxHeadDim && part < n_parts);
  const size_t stride = KeyListPartialFloats(problem.head_dim);
  const auto queries = static_cast<size_t>(problem.n_rows) * static_cast<size_t>(problem.n_heads);
  float* own = reinterpret_cast<float*>(partials) + static_cast<size_t>(part) * queries * stride;
  std::fill_n(own, queries * stride, 0.0f);
  for (size_t i = 0; i < queries; ++i) own[i * stride] = -FLT_MAX;
  HWY_DYNAMIC_DISPATCH(DecodePart)(problem, part, n_parts, own);
}

void DecodeAttentionMerge(const AttentionProblem& problem, int n_parts, int head_begin, int head_end,
                          const std::byte* partials) {
  const size_t stride = KeyListPartialFloats(problem.head_dim);
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
        for (int i = 0; i < problem.head_dim; ++i) out[i] += weight * partial[kKeyListHeader + static_cast<size_t>(i)];
      }
    }
  }
}

}  // namespace loopserve
#endif  // HWY_ONCE
