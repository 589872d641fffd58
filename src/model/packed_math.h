// A layer of prefill around attention, for many rows: weights that were dequantised and packed, multiplied by Gemm.
// Rows go through all steps in blocks, each block by one thread: what lies between two steps stays in its caches, and
// nothing waits for other blocks. Thread rule: one owner; the calls run on the compute threads.
#pragma once

#include <cstdint>
#include <vector>

#include "loopserve/status.h"
#include "src/base/aligned_buffer.h"
#include "src/kvcache/kv_cache.h"
#include "src/model/compute_threads.h"
#include "src/model/gemm.h"
#include "src/model/model.h"
#include "src/model/prefill_weights.h"
#include "src/model/rope_table.h"

namespace loopserve {

class PackedMath {
 public:
  PackedMath(const Model& model, const Gemm& gemm, ComputeThreads& threads);

  /// The layer that the next calls compute; `packed` is its weights. kResourceExhausted without memory for scratch.
  Status SetLayer(int layer, const PackedLayer* packed);

  /// Norm, projections, norms of Q and K, RoPE. x: f32 [n_rows, n_embd], the rows at `first_position` and on, whose
  /// turns are rows `first_row` and on of `rope`. Keys and values go to the cache, queries to q: f32 [n_rows, q_width].
  Status BeforeAttention(const float* x, int64_t n_rows, int64_t first_position, const RopeTable& rope,
                         int64_t first_row, KvCache* cache, float* q);

  /// Output projection, residual, feed-forward block, residual. attention: f32 [n_rows, q_width]; x: f32
  /// [n_rows, n_embd], in place.
  Status AfterAttention(const float* attention, int64_t n_rows, float* x);

 private:
  struct Scratch;
  Scratch ScratchOf(int thread);
  /// body(first, rows, scratch) for all blocks of n_rows.
  template <class Body>
  Status ForBlocks(int64_t n_rows, const Body& body);
  /// y = norm(x) * matrix, or without the norm; x: [rows, matrix.k].
  void Multiply(const PackedMatrix& matrix, const float* x, const float* norm, int64_t rows, const Scratch& scratch,
                float* y) const;
  /// x += delta, which passes the post-norm first where there is one; both [rows, n_embd].
  void AddResidual(float* delta, const float* post_norm, int64_t rows, float* x) const;
  /// x += the feed-forward block of x, [rows, n_embd].
  void FeedForward(int64_t rows, const Scratch& scratch, float* x) const;

  const Model& model_;
  const Gemm& gemm_;
  ComputeThreads& threads_;
  int layer_ = 0;
  const PackedLayer* packed_ = nullptr;
  struct {
    size_t delta = 0, row = 0, prepared = 0, gemm = 0;
  } offsets_;                           ///< in a thread's scratch
  std::vector<AlignedBuffer> scratch_;  ///< per thread
};

}  // namespace loopserve
