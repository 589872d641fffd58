// The transformer block as graph nodes, family differences included: what stands before attention and what stands
// behind it. Attention itself is placed between the two by the caller (decode: a node; prefill: a pass over all rows).
#pragma once

#include "ggml.h"
#include "src/model/layer_math.h"
#include "src/model/model.h"

namespace loopserve {

class LayerGraph {
 public:
  LayerGraph(ggml_context* context, const Model& model, LayerMath& math)
      : context_(context), model_(model), math_(math) {}

  /// Embeddings of the tokens, scaled as the family wants: i32 [rows] -> f32 [n_embd, rows].
  ggml_tensor* Embed(ggml_tensor* tokens);
  /// Norm, projections, norms of Q and K, RoPE. x: [n_embd, rows]; positions: i32 [rows].
  /// All three come out contiguous.
  Projections BeforeAttention(int layer, ggml_tensor* x, ggml_tensor* positions);
  /// Output projection, residual, feed-forward block, residual, into the memory of x. attention: f32 [q_width, rows].
  ggml_tensor* AfterAttention(int layer, ggml_tensor* attention, ggml_tensor* x);
  /// The final norm: [n_embd, rows].
  ggml_tensor* OutputNorm(ggml_tensor* x);
  /// Logits: f32 [n_vocab, rows].
  ggml_tensor* Logits(ggml_tensor* x);

 private:
  ggml_tensor* Rope(int layer, ggml_tensor* x, ggml_tensor* positions);

  ggml_context* context_;
  const Model& model_;
  LayerMath& math_;
};

}  // namespace loopserve
