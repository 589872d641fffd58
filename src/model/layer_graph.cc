#include "src/model/layer_graph.h"

namespace loopserve {

ggml_tensor* LayerGraph::Norm(ggml_tensor* x, ggml_tensor* weight) {
  return ggml_mul(context_, ggml_rms_norm(context_, x, model_.params().rms_eps), weight);
}

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
  Projections heads = math_.Project(context_, layer, Norm(x, w.attn_norm));
  if (w.q_norm != nullptr) heads.q = Norm(heads.q, w.q_norm);
  if (w.k_norm != nullptr) heads.k = Norm(heads.k, w.k_norm);
  heads.q = Rope(layer, heads.q, positions);
  heads.k = Rope(layer, heads.k, positions);
  if (!ggml_is_contiguous(heads.v)) heads.v = ggml_cont(context_, heads.v);
  return heads;
}

ggml_tensor* LayerGraph::AfterAttention(int layer, ggml_tensor* attention, ggml_tensor* x) {
  const LayerWeights& w = model_.layer(layer);
  ggml_tensor* delta = math_.AttentionOutput(context_, layer, attention);
  if (w.attn_post_norm != nullptr) delta = Norm(delta, w.attn_post_norm);
  // In place: x is nobody else's from here on, and the caller's copy of it need not be written again.
  x = ggml_add_inplace(context_, x, delta);
  delta = math_.FeedForward(context_, layer, Norm(x, w.ffn_norm));
  if (w.ffn_post_norm != nullptr) delta = Norm(delta, w.ffn_post_norm);
  return ggml_add_inplace(context_, x, delta);
}

ggml_tensor* LayerGraph::OutputNorm(ggml_tensor* x) { return Norm(x, model_.output_norm()); }

ggml_tensor* LayerGraph::Logits(ggml_tensor* x) {
  ggml_tensor* logits = ggml_mul_mat(context_, model_.output(), OutputNorm(x));
  const float cap = model_.params().final_softcap;
  if (cap == 0.0f) return logits;
  return ggml_scale(context_, ggml_tanh(context_, ggml_scale(context_, logits, 1.0f / cap)), cap);
}

}  // namespace loopserve
