#include "src/model/layer_math.h"

#include <algorithm>
#include <atomic>

#include "src/kernels/elementwise.h"

namespace loopserve {
namespace {

/// Rows that a thread takes at a time. Few enough that the intermediate results of the feed-forward block stay in the
/// second-level cache and that a thread which was held up does not hold up the others; 32 to 256 were equally fast.
constexpr int64_t kBlockRows = 64;

ggml_tensor* AddBias(ggml_context* context, ggml_tensor* x, ggml_tensor* bias) {
  return bias == nullptr ? x : ggml_add(context, x, bias);
}

ggml_tensor* Linear(ggml_context* context, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* x) {
  return AddBias(context, ggml_mul_mat(context, weight, x), bias);
}

/// Calls body(first, rows) for blocks of rows until all are taken, by this thread or another.
template <class Body>
void ForRowBlocks(std::atomic<int64_t>* next_block, int64_t n_rows, const Body& body) {
  for (int64_t first; (first = next_block->fetch_add(1) * kBlockRows) < n_rows;) {
    body(first, std::min(kBlockRows, n_rows - first));
  }
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

PackedMath::PackedMath(const Model& model, const Gemm& gemm, int n_threads)
    : LayerMath(model), gemm_(gemm), scratch_(n_threads) {}

Status PackedMath::SetLayer(const PackedLayer* layer) {
  layer_ = layer;
  products_.clear();
  size_t bytes = 0;
  for (const PackedMatrix* m : {&layer->qkv, &layer->out, &layer->gate_up, &layer->down}) {
    bytes = std::max(bytes, gemm_.ScratchBytes(m->k, m->n));
  }
  // The feed-forward block keeps gate and up (f32) and their product (this math's type) beside the products' scratch.
  bytes += static_cast<size_t>(kBlockRows * layer->gate_up.n) * sizeof(float) +
           static_cast<size_t>(kBlockRows * layer->down.k) * sizeof(float) + 2 * AlignedBuffer::kAlignment;
  for (AlignedBuffer& scratch : scratch_) {
    if (!scratch.Reserve(bytes)) return Status(StatusCode::kResourceExhausted, "not enough memory for prefill scratch");
  }
  return Status::Ok();
}

void PackedMath::RunProduct(ggml_tensor* y, int thread, int, void* userdata) {
  auto& product = *static_cast<Product*>(userdata);
  const PackedMatrix& m = *product.matrix;
  const ggml_tensor* x = y->src[0];
  const int64_t stride = static_cast<int64_t>(x->nb[1] / sizeof(float));
  ForRowBlocks(&product.next_block, x->ne[1], [&](int64_t first, int64_t rows) {
    product.math->gemm_.Multiply(m.data, m.k, m.n, static_cast<const float*>(x->data) + first * stride, stride, rows,
                                 m.bias, static_cast<float*>(y->data) + first * m.n,
                                 product.math->scratch_[thread].data());
  });
}

ggml_tensor* PackedMath::AddProduct(ggml_context* context, const PackedMatrix& matrix, ggml_tensor* x) {
  products_.push_back(std::make_unique<Product>(this, &matrix));
  return ggml_custom_4d(context, GGML_TYPE_F32, matrix.n, x->ne[1], 1, 1, &x, 1, RunProduct, GGML_N_TASKS_MAX,
                        products_.back().get());
}

Projections PackedMath::Project(ggml_context* context, int layer, ggml_tensor* x) {
  const HyperParams& p = model_.params();
  ggml_tensor* qkv = AddProduct(context, layer_->qkv, RmsNorm(context, model_, x, model_.layer(layer).attn_norm));
  const int64_t rows = x->ne[1];
  const size_t head_bytes = static_cast<size_t>(p.head_dim) * sizeof(float);
  const auto view = [&](int heads, int first_column) {
    return ggml_view_3d(context, qkv, p.head_dim, heads, rows, head_bytes, qkv->nb[1],
                        static_cast<size_t>(first_column) * sizeof(float));
  };
  return {view(p.n_heads, 0), view(p.n_kv_heads, p.q_width()), view(p.n_kv_heads, p.q_width() + p.kv_width())};
}

ggml_tensor* PackedMath::AddAttentionOutput(ggml_context* context, int layer, ggml_tensor* attention, ggml_tensor* x) {
  return AddResidual(context, x, AddProduct(context, layer_->out, attention), model_.layer(layer).attn_post_norm);
}

void PackedMath::RunFeedForward(ggml_tensor* y, int thread, int, void* userdata) {
  auto& product = *static_cast<Product*>(userdata);
  const PackedMath& math = *product.math;
  const PackedMatrix& gate_up = math.layer_->gate_up;
  const PackedMatrix& down = math.layer_->down;
  const ggml_tensor* x = y->src[0];
  const int64_t n_ff = down.k;
  std::byte* scratch = math.scratch_[thread].data();
  auto* hidden = reinterpret_cast<float*>(scratch);  // [kBlockRows, 2 * n_ff]
  std::byte* prepared = scratch + static_cast<size_t>(kBlockRows * gate_up.n) * sizeof(float);
  std::byte* rest = prepared + static_cast<size_t>(kBlockRows * n_ff) * sizeof(float);
  const size_t prepared_row_bytes = static_cast<size_t>(n_ff) * math.gemm_.element_bytes();
  const bool is_silu = math.model_.params().activation == Activation::kSilu;
  ForRowBlocks(&product.next_block, x->ne[1], [&](int64_t first, int64_t rows) {
    math.gemm_.Multiply(gate_up.data, gate_up.k, gate_up.n, static_cast<const float*>(x->data) + first * gate_up.k,
                        gate_up.k, rows, gate_up.bias, hidden, rest);
    for (int64_t r = 0; r < rows; ++r) {
      float* gate = hidden + r * gate_up.n;
      is_silu ? SiluMultiply(gate, gate + n_ff, n_ff) : GeluMultiply(gate, gate + n_ff, n_ff);
      math.gemm_.Prepare(gate, n_ff, prepared + static_cast<size_t>(r) * prepared_row_bytes);
    }
    math.gemm_.MultiplyPrepared(down.data, n_ff, down.n, prepared, rows, down.bias,
                                static_cast<float*>(y->data) + first * down.n, rest);
  });
}

ggml_tensor* PackedMath::AddFeedForward(ggml_context* context, int layer, ggml_tensor* x) {
  const LayerWeights& w = model_.layer(layer);
  ggml_tensor* normed = RmsNorm(context, model_, x, w.ffn_norm);
  products_.push_back(std::make_unique<Product>(this, &layer_->down));
  ggml_tensor* delta = ggml_custom_4d(context, GGML_TYPE_F32, layer_->down.n, x->ne[1], 1, 1, &normed, 1,
                                      RunFeedForward, GGML_N_TASKS_MAX, products_.back().get());
  return AddResidual(context, x, delta, w.ffn_post_norm);
}

}  // namespace loopserve
