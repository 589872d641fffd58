#include "src/model/layer_math.h"

namespace loopserve {
namespace {

ggml_tensor* AddBias(ggml_context* context, ggml_tensor* x, ggml_tensor* bias) {
  return bias == nullptr ? x : ggml_add(context, x, bias);
}

ggml_tensor* Linear(ggml_context* context, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* x) {
  return AddBias(context, ggml_mul_mat(context, weight, x), bias);
}

}  // namespace

ggml_tensor* RmsNorm(ggml_context* context, const Model& model, ggml_tensor* x, ggml_tensor* weight) {
  return ggml_mul(context, ggml_rms_norm(context, x, model.params().rms_eps), weight);
}

ggml_tensor* LayerMath::Output(ggml_context* context, ggml_tensor* x) {
  return ggml_mul_mat(context, model_.output(), RmsNorm(context, model_, x, model_.output_norm()));
}

ggml_tensor* LayerMath::AddResidual(ggml_context* context, ggml_tensor* x, ggml_tensor* delta, ggml_tensor* post_norm) {
  if (post_norm != nullptr) delta = RmsNorm(context, model_, delta, post_norm);
  // In place: x is nobody else's from here on, and the caller's copy of it need not be written again.
  return ggml_add_inplace(context, x, delta);
}

Projections QuantizedMath::Project(ggml_context* context, int layer, ggml_tensor* x) {
  const HyperParams& p = model_.params();
  const LayerWeights& w = model_.layer(layer);
  const int64_t rows = x->ne[1];
  x = RmsNorm(context, model_, x, w.attn_norm);
  return {ggml_reshape_3d(context, Linear(context, w.wq, w.bq, x), p.head_dim, p.n_heads, rows),
          ggml_reshape_3d(context, Linear(context, w.wk, w.bk, x), p.head_dim, p.n_kv_heads, rows),
          ggml_reshape_3d(context, Linear(context, w.wv, w.bv, x), p.head_dim, p.n_kv_heads, rows)};
}

ggml_tensor* QuantizedMath::AddAttentionOutput(ggml_context* context, int layer, ggml_tensor* attention,
                                               ggml_tensor* x) {
  const LayerWeights& w = model_.layer(layer);
  return AddResidual(context, x, Linear(context, w.wo, w.bo, attention), w.attn_post_norm);
}

ggml_tensor* QuantizedMath::AddFeedForward(ggml_context* context, int layer, ggml_tensor* x) {
  const LayerWeights& w = model_.layer(layer);
  ggml_tensor* normed = RmsNorm(context, model_, x, w.ffn_norm);
  ggml_tensor* gate = Linear(context, w.w_gate, w.b_gate, normed);
  ggml_tensor* up = Linear(context, w.w_up, w.b_up, normed);
  ggml_tensor* hidden = model_.params().activation == Activation::kSilu ? ggml_swiglu_split(context, gate, up)
                                                                        : ggml_geglu_split(context, gate, up);
  return AddResidual(context, x, Linear(context, w.w_down, w.b_down, hidden), w.ffn_post_norm);
}

}  // namespace loopserve
