#include "src/model/layer_graph.h"

namespace loopserve {

ggml_tensor* LayerGraph::Rope(int layer, ggml_tensor* x, ggml_tensor* positions) {
  const RopeParams& rope = model_.params().rope;
  const bool is_sliding = model_.params().is_sliding_layer[layer];
  return ggml_rope_ext(context_, x, positions, is_sliding ? nullptr : model_.rope_factors(), rope.n_dims, rope.mode,
                       rope.n_ctx_orig, is_sliding ? rope.freq_base_sliding : rope.freq_base,
                       is_sliding ? 1.0f : rope.freq_scale, rope.ext_factor, rope.attn_factor, rope.beta_fast,
                       rope.beta_slow);
}

ggml_tensor* LayerGraph::Embed(ggml_tensor* tokens) {
  ggml_tensor* x = ggml_get_rows(context_, model_.token_embedding(), tokens);
  const float scale = model_.params().embedding_scale;
  return scale == 1.0f ? x : ggml_scale(context_, x, scale);
}

Projections LayerGraph::BeforeAttention(int layer, ggml_tensor* x, ggml_tensor* positions) {
  const LayerWeights& w = model_.layer(layer);
  Projections heads = math_.Project(context_, layer, x);
  if (w.q_norm != nullptr) heads.q = RmsNorm(context_, model_, heads.q, w.q_norm);
  if (w.k_norm != nullptr) heads.k = RmsNorm(context_, model_, heads.k, w.k_norm);
  heads.q = Rope(layer, heads.q, positions);
  heads.k = Rope(layer, heads.k, positions);
  if (!ggml_is_contiguous(heads.v)) heads.v = ggml_cont(context_, heads.v);
  return heads;
}

ggml_tensor* LayerGraph::AfterAttention(int layer, ggml_tensor* attention, ggml_tensor* x) {
  return math_.AddFeedForward(context_, layer, math_.AddAttentionOutput(context_, layer, attention, x));
}

ggml_tensor* LayerGraph::OutputNorm(ggml_tensor* x) { return RmsNorm(context_, model_, x, model_.output_norm()); }

ggml_tensor* LayerGraph::Logits(ggml_tensor* x) {
  ggml_tensor* logits = math_.Output(context_, x);
  const float cap = model_.params().final_softcap;
  if (cap == 0.0f) return logits;
  return ggml_scale(context_, ggml_tanh(context_, ggml_scale(context_, logits, 1.0f / cap)), cap);
}

}  // namespace loopserve
