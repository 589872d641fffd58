// Dense causal attention over the KV cache, for one layer: many query rows (prefill) or a few (decode).
// Both are exact softmax attention; what differs is the shape of the work. Sparse kernels will stand beside these.
//
// Flow of a prefill: PackKv (each thread a range of keys of each KV head) -> barrier -> PrefillAttentionItem for every
// work item, in any order and on any thread. Decode: DecodeAttentionPartial (each thread its share of the keys)
// -> barrier -> DecodeAttentionMerge. The caller owns threads, barriers and all memory; nothing here allocates.
// Every output row is computed by one item alone in a fixed order, so results do not depend on the number of threads
// in prefill; decode depends on `n_parts` only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "src/kernels/kv_view.h"

namespace loopserve {

/// Precision of the products in prefill attention; sums, softmax and the output are f32 in both.
/// kBf16 rounds Q, K (less what all keys of a head have in common), V and the weights to bfloat16 and needs
/// CpuHasNativeBf16(); through that common part the rounding of a row depends on all keys that were packed.
enum class AttentionMath : uint8_t { kF32, kBf16 };

/// Whether this CPU multiplies bf16 pairs natively (AVX512_BF16).
bool CpuHasNativeBf16();

/// One layer's attention. Query row r stands at position first_position + r and attends keys
/// [max(0, p - window + 1), p] for p = first_position + r (window 0: all keys up to p).
/// Query head h reads KV head h / (n_heads / n_kv_heads).
struct AttentionProblem {
  const float* q = nullptr;    ///< f32 [n_rows, n_heads, head_dim], rows q_row_stride floats apart
  int64_t q_row_stride = 0;    ///< in floats
  float* out = nullptr;        ///< f32 [n_rows, n_heads, head_dim], rows out_row_stride floats apart
  int64_t out_row_stride = 0;  ///< in floats
  int64_t n_rows = 0;
  int64_t first_position = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;                ///< multiple of 8, at most kMaxHeadDim
  float scale = 0;                 ///< multiplies q.k before the softmax
  int64_t window = 0;              ///< sliding window in keys, 0 = none
  const KvHeadView* kv = nullptr;  ///< [n_kv_heads]; n_keys >= first_position + n_rows
};

/// The part of `whole` that one KV head's queries are, over that head's own keys, however many it has: the last row
/// stands behind the last of them.
inline AttentionProblem KvHeadProblem(const AttentionProblem& whole, int kv_head) {
  AttentionProblem part = whole;
  part.n_heads = whole.n_heads / whole.n_kv_heads;
  part.n_kv_heads = 1;
  part.kv = &whole.kv[kv_head];
  part.first_position = part.kv->n_keys - whole.n_rows;
  const int64_t column = int64_t{kv_head} * part.n_heads * part.head_dim;
  if (part.q != nullptr) part.q += column;
  if (part.out != nullptr) part.out += column;
  return part;
}

inline constexpr int kMaxHeadDim = 512;

// ---- Prefill ----

/// Keys are packed in groups of this many; PackKv ranges must start at a multiple of it.
inline constexpr int64_t kPackGroupKeys = 64;
/// n_keys rounded up to whole groups.
constexpr int64_t PaddedKeys(int64_t n_keys) { return (n_keys + kPackGroupKeys - 1) / kPackGroupKeys * kPackGroupKeys; }

/// Bytes of the packed keys and values of one KV head with n_keys keys. 64-byte aligned memory is expected.
size_t PackedKvBytes(int head_dim, int64_t n_keys, AttentionMath math);

/// Packs keys [first_key, last_key) of `kv` into `packed`, the buffer of PackedKvBytes(head_dim, kv.n_keys, math) bytes
/// for that KV head. first_key is a multiple of kPackGroupKeys; last_key too, or it is kv.n_keys (then padding is
/// zeroed). Disjoint ranges may be packed by different threads.
void PackKv(const KvHeadView& kv, int64_t first_key, int64_t last_key, AttentionMath math, std::byte* packed);

/// Scratch bytes that one thread needs for PrefillAttentionItem (64-byte aligned).
size_t PrefillScratchBytes(int head_dim, AttentionMath math);

/// Number of independent work items; a later item is never cheaper than it must be: items are ordered so that handing
/// them out one after another from a shared counter balances well (longest rows first).
int64_t PrefillItemCount(const AttentionProblem& problem);

/// Computes one item: some rows of one query head. packed[kv_head] is that head's packed buffer.
void PrefillAttentionItem(const AttentionProblem& problem, AttentionMath math, const std::byte* const* packed,
                          int64_t item, std::byte* scratch);

// ---- Decode (few rows; reads the cache as it is stored) ----

/// Bytes for the partial results of n_parts parts.
size_t DecodePartialBytes(const AttentionProblem& problem, int n_parts);

/// Attends part `part` of n_parts equal key ranges, for all heads and rows, into `partials`.
void DecodeAttentionPartial(const AttentionProblem& problem, int part, int n_parts, std::byte* partials);

/// Combines the partials of heads [head_begin, head_end) into problem.out.
void DecodeAttentionMerge(const AttentionProblem& problem, int n_parts, int head_begin, int head_end,
                          const std::byte* partials);

// ---- KV rows ----

/// Stores n f32 elements as one cache row: round to nearest even (kF16), or ggml's q8_0 quantisation (kQ8_0).
void StoreKvRow(KvType type, const float* source, int n, std::byte* row);
/// The inverse of StoreKvRow.
void LoadKvRow(KvType type, const std::byte* row, int n, float* target);

// ---- Plain twin, for tests and for reading ----

/// The same result as prefill and decode, in f64, one row after another, no SIMD.
void AttentionReference(const AttentionProblem& problem);
/// The same over those of a row's causal keys that `attends` lets it; at least one.
void MaskedAttentionReference(const AttentionProblem& problem,
                              const std::function<bool(int head, int64_t row, int64_t key)>& attends);

}  // namespace loopserve
