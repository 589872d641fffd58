// A step of decoding: all layers for a few rows as one ggml graph, attention as nodes of our own in it. The graph for a
// given number of rows is built once; steps only change what its nodes point at.
// Thread rule: one owner.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "loopserve/engine.h"
#include "src/base/aligned_buffer.h"
#include "src/kvcache/kv_cache.h"
#include "src/model/compute_threads.h"
#include "src/model/decode_sparsity.h"
#include "src/model/forward.h"
#include "src/model/layer_math.h"
#include "src/model/stored_math.h"

namespace loopserve {

class DecodeGraph {
 public:
  DecodeGraph(const Model& model, ComputeThreads& threads);
  ~DecodeGraph();

  /// See Forward::Run; tokens.size() <= Forward::kDecodeRows. The KV rows are stored but not committed.
  /// logits: f32 [rows, n_vocab] if all_rows, else [n_vocab] of the last row.
  Status Run(Dialogue& dialogue, std::span<const Token> tokens, bool all_rows, std::span<const float>* logits,
             ForwardStats* stats);

  DecodeSparsity& sparsity() { return sparsity_; }

 private:
  struct Step;       // what the nodes of the current step read and write
  struct LayerNode;  // a layer's attention node
  static void StoreNode(ggml_tensor* y, int thread, int n_threads, void* node);
  static void WeighNode(ggml_tensor* y, int thread, int n_threads, void* node);
  static void PickNode(ggml_tensor* y, int thread, int n_threads, void* node);
  static void PartialNode(ggml_tensor* y, int thread, int n_threads, void* node);
  static void MergeNode(ggml_tensor* y, int thread, int n_threads, void* node);

  Status Build(int64_t rows, bool all_rows);
  ggml_tensor* AddAttention(ggml_context* context, int layer, const Projections& heads, ggml_tensor* turns);

  const Model& model_;
  ComputeThreads& threads_;
  StoredMath math_;
  DecodeSparsity sparsity_;
  GraphMemory memory_;
  ggml_cgraph* graph_ = nullptr;
  ggml_tensor* logits_ = nullptr;
  int64_t built_rows_ = 0;
  bool built_all_rows_ = false;
  std::unique_ptr<Step> step_;
  std::vector<std::unique_ptr<LayerNode>> nodes_;
};

}  // namespace loopserve
