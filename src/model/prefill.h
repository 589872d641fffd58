// Layer-major prefill: layer l for all new rows before layer l + 1. Rows go through the matrix products in chunks that
// suit the caches; attention then sees every row of the turn at once, which is what choosing its lines needs.
// Thread rule: one owner.
//
// Workspace, beside weights and KV, for n new rows in a pass (at most kPassRows): two f32 [n, width] buffers
// (residual; queries, which attention's output replaces), what attention takes (prefill_attention.h), the packed
// weights of the cache and of one layer (one for all that run), and a chunk's intermediate results. Nothing grows with
// n squared.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "loopserve/engine.h"
#include "src/base/aligned_buffer.h"
#include "src/kernels/attention.h"
#include "src/kvcache/kv_cache.h"
#include "src/model/compute_threads.h"
#include "src/model/forward.h"
#include "src/model/layer_math.h"
#include "src/model/logits_head.h"
#include "src/model/packed_math.h"
#include "src/model/prefill_attention.h"
#include "src/model/prefill_weights.h"
#include "src/model/rope_table.h"

namespace loopserve {

class Prefill {
 public:
  /// Rows of one layer-major pass; longer prompts take several.
  static constexpr int64_t kPassRows = 32768;
  /// Passes below this many rows multiply with the weights as they are stored: dequantising a layer would cost more.
  static constexpr int64_t kMinPackedRows = 16;

  /// gemm (the layers' products, with `weights`, which several share) and logits_gemm (logits of all rows) null: always
  /// the quantised kernels.
  Prefill(const Model& model, const Gemm* gemm, PrefillWeights* weights, const Gemm* logits_gemm,
          ComputeThreads& threads);
  ~Prefill();

  /// One pass over tokens.size() <= kPassRows rows, see Forward::Run. The KV rows are stored but not committed.
  /// done_before and share place this pass in the caller's progress. Where it yields another Prefill may run.
  Status Run(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
             const LogitsCallback& on_logits, double done_before, double share, std::vector<float>* last_logits,
             ForwardStats* stats);

 private:
  struct Pass;
  Status PrepareBuffers(const Pass& pass);
  Status RunLayers(Pass& pass);
  Status PrepareLayer(int layer);
  Status BeginInspection(Pass& pass);
  Status Inspect(Pass& pass, int layer);
  Status EmbedChunk(Pass& pass, int64_t first, int64_t rows);
  Status BeforeAttention(Pass& pass, int layer, bool packed, int64_t first, int64_t rows);
  Status AfterAttention(int layer, bool packed, int64_t first, int64_t rows);
  Status BeforeAttentionGraph(Pass& pass, int layer, int64_t first, int64_t rows);
  Status AfterAttentionGraph(int layer, int64_t first, int64_t rows);
  Status ForChunks(Pass& pass, int64_t first_row, const std::function<Status(int64_t first, int64_t rows)>& body);
  Status Logits(Pass& pass, const LogitsCallback& on_logits, std::vector<float>* last_logits);

  const Model& model_;
  const Gemm* gemm_;
  ComputeThreads& threads_;
  QuantizedMath quantized_math_;
  std::unique_ptr<PackedMath> packed_math_;
  PrefillWeights* const weights_;
  RopeTable rope_;
  LogitsHead head_;
  GraphMemory memory_;
  PrefillAttention attention_;
  AlignedBuffer x_;  ///< f32 [rows, n_embd]
  AlignedBuffer q_;  ///< f32 [rows, q_width]; attention's output replaces the queries
};

}  // namespace loopserve
