// Attention of one position's query heads over listed keys of the cache, in parts that can be added up: what decode
// steps over chosen keys and single lines of prefill are made of. Thread rule: pure functions.
//
// A partial is the softmax of a part of a query's keys, f32 [KeyListPartialFloats]: [0] = a score in units of log2 that
// is at least as large as any of the part, [1] = the sum of weights relative to it, from kKeyListHeader on the weighted
// sum of values [head_dim]. DecodeAttentionMerge combines partials.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/kernels/kv_view.h"

namespace loopserve {

inline constexpr size_t kKeyListHeader = 16;
size_t KeyListPartialFloats(int head_dim);

/// n_queries partials, one after another, of no keys.
void ClearPartials(int head_dim, int n_queries, float* partials);

/// Adds keys[0, n_keys), in any order, to the partials of n_queries queries, f32 [n_queries][head_dim].
void AddKeyList(const KvHeadView& kv, const float* q, int n_queries, float scale, const int32_t* keys, int64_t n_keys,
                float* partials);

/// Asks for the rows of keys[0, n_keys) to be brought nearer than memory, for an AddKeyList soon after other work.
void FetchKeyList(const KvHeadView& kv, const int32_t* keys, int64_t n_keys);

/// One query over keys[0, n_keys) alone.
void AttendKeyList(const KvHeadView& kv, const float* q, float scale, const int32_t* keys, int64_t n_keys,
                   float* partial);

/// Adds to one partial rows of values, f32 [n_rows][head_dim], with given weights (f32 [n_rows], at least 0, relative
/// to 2^max).
void AddWeightedRows(const float* rows, int64_t n_rows, int head_dim, const float* weights, float max, float* partial);

/// Scores of up to kMaxScoredQueries queries (f32 [head_dim] each) against keys [0, n_keys), in units of log2:
/// scores[i * stride + t] = scale * log2(e) * q[i] . key t. stride >= n_keys rounded up to 4.
inline constexpr int kMaxScoredQueries = 4;
void ScoreKeys(const KvHeadView& kv, const float* const* q, int n_queries, float scale, int64_t n_keys, float* scores,
               int64_t stride);

}  // namespace loopserve
