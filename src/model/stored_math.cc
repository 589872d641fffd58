#include "src/model/stored_math.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "src/base/check.h"
#include "src/kernels/elementwise.h"
#include "src/kernels/stored_product.h"

namespace loopserve {
namespace {

/// Columns that a thread takes at a time: enough that taking them costs nothing, few enough that a thread which was
/// held up does not hold up the others.
constexpr int64_t kMinColumns = 16;
constexpr int64_t kMaxColumns = 512;
constexpr int64_t kSharesPerThread = 8;

std::optional<StoredType> StoredTypeOf(ggml_type type) {
  switch (type) {
    case GGML_TYPE_Q4_0:
      return StoredType::kQ4_0;
    case GGML_TYPE_Q4_1:
      return StoredType::kQ4_1;
    case GGML_TYPE_Q5_0:
      return StoredType::kQ5_0;
    case GGML_TYPE_Q5_1:
      return StoredType::kQ5_1;
    case GGML_TYPE_Q8_0:
      return StoredType::kQ8_0;
    case GGML_TYPE_Q4_K:
      return StoredType::kQ4_K;
    case GGML_TYPE_Q5_K:
      return StoredType::kQ5_K;
    case GGML_TYPE_Q6_K:
      return StoredType::kQ6_K;
    default:
      return std::nullopt;
  }
}

template <class... Tensors>
bool AreKnown(const Tensors*... weights) {
  return (... && StoredTypeOf(weights->type).has_value());
}

const float* FloatsOf(const ggml_tensor* tensor) {
  return tensor == nullptr ? nullptr : static_cast<const float*>(tensor->data);
}

}  // namespace

/// One node: the matrices that multiply the same input, side by side in its output (or gate and up, of one width).
struct StoredMath::Product {
  struct Part {
    StoredMatrix matrix;
    const float* bias;
    int64_t first_column;  ///< in the output
  };
  StoredMath* math = nullptr;
  std::vector<Part> parts;
  const float* norm = nullptr;
  bool adds = false;  ///< to what stands in the output
  int64_t k = 0;
  int64_t n_columns = 0;
  int64_t share = 0;  ///< columns that a thread takes at a time
  std::atomic<int64_t> next{0};

  /// Calls body(first, columns) for shares of n columns until all are taken, by this thread or another.
  template <class Body>
  void ForShares(int64_t n, const Body& body) {
    for (int64_t first; (first = next.fetch_add(share, std::memory_order_relaxed)) < n;) {
      body(first, std::min(share, n - first));
    }
  }
};

struct StoredMath::Scratch {
  std::byte* prepared;  ///< PreparedBytes(k, rows)
  float* sums;          ///< [rows, kMaxColumns]
};

StoredMath::StoredMath(const Model& model, int n_threads)
    : LayerMath(model), fallback_(model), scratch_(static_cast<size_t>(n_threads)) {
  widest_ = std::max<int64_t>(model.params().n_embd, model.params().q_width());
  for (int layer = 0; layer < model.params().n_layers; ++layer) {
    widest_ = std::max(widest_, model.layer(layer).w_down->ne[0]);
  }
}

StoredMath::~StoredMath() = default;

Status StoredMath::Reserve(int64_t n_rows) {
  const size_t bytes = PreparedBytes(widest_, n_rows) +
                       static_cast<size_t>(widest_ + kMaxColumns * n_rows) * sizeof(float) +
                       2 * AlignedBuffer::kAlignment;
  for (AlignedBuffer& scratch : scratch_) {
    if (!scratch.Reserve(bytes)) return Status(StatusCode::kResourceExhausted, "not enough memory for a decode step");
  }
  return Status::Ok();
}

bool StoredMath::KnowsAll(const Model& model) {
  for (int layer = 0; layer < model.params().n_layers; ++layer) {
    const LayerWeights& w = model.layer(layer);
    if (!AreKnown(w.wq, w.wk, w.wv, w.wo, w.w_gate, w.w_up, w.w_down)) return false;
  }
  return AreKnown(model.output());
}

void StoredMath::BeginStep() {
  for (const auto& node : nodes_) node->next.store(0, std::memory_order_relaxed);
}

StoredMath::Product* StoredMath::AddNode(std::vector<ggml_tensor*> weights, std::vector<ggml_tensor*> biases,
                                         ggml_tensor* norm) {
  nodes_.push_back(std::make_unique<Product>());
  Product& node = *nodes_.back();
  node.math = this;
  node.norm = FloatsOf(norm);
  node.k = weights.front()->ne[0];
  for (size_t i = 0; i < weights.size(); ++i) {
    const ggml_tensor* w = weights[i];
    LS_CHECK(w->ne[0] == node.k);
    node.parts.push_back({{*StoredTypeOf(w->type), static_cast<const std::byte*>(w->data), node.k, w->ne[1]},
                          FloatsOf(biases[i]),
                          node.n_columns});
    node.n_columns += w->ne[1];
  }
  const int64_t even = node.n_columns / (kSharesPerThread * static_cast<int64_t>(scratch_.size()));
  node.share = std::clamp((even + kMinColumns - 1) / kMinColumns * kMinColumns, kMinColumns, kMaxColumns);
  return &node;
}

StoredMath::Scratch StoredMath::PrepareInput(const Product& product, const ggml_tensor* input, int thread) const {
  std::byte* memory = scratch_[static_cast<size_t>(thread)].data();
  const size_t row_bytes = PreparedRowBytes(product.k);
  auto* normed = reinterpret_cast<float*>(memory + PreparedBytes(widest_, input->ne[1]));
  for (int64_t r = 0; r < input->ne[1]; ++r) {
    const auto* row = reinterpret_cast<const float*>(static_cast<const std::byte*>(input->data) +
                                                     static_cast<size_t>(r) * input->nb[1]);
    if (product.norm != nullptr) {
      RmsNormalize(row, product.norm, product.k, model_.params().rms_eps, normed);
      row = normed;
    }
    PrepareRow(row, product.k, memory + static_cast<size_t>(r) * row_bytes);
  }
  PrepareTogether(memory, product.k, input->ne[1]);
  return {memory, normed + widest_};
}

void StoredMath::RunProduct(ggml_tensor* y, int thread, int, void* userdata) {
  auto& product = *static_cast<Product*>(userdata);
  // An in-place node has its residual stream as the first source.
  const ggml_tensor* input = product.adds ? y->src[1] : y->src[0];
  const int64_t rows = input->ne[1];
  const Scratch scratch = product.math->PrepareInput(product, input, thread);
  auto* out = static_cast<float*>(y->data);
  const int64_t stride = static_cast<int64_t>(y->nb[1] / sizeof(float));
  product.ForShares(product.n_columns, [&](int64_t first, int64_t columns) {
    for (const Product::Part& part : product.parts) {
      const int64_t begin = std::max(first, part.first_column);
      const int64_t n = std::min(first + columns, part.first_column + part.matrix.n) - begin;
      if (n <= 0) continue;
      float* target = product.adds ? scratch.sums : out + begin;
      const int64_t target_stride = product.adds ? n : stride;
      StoredProduct(part.matrix, scratch.prepared, rows, begin - part.first_column, n, target, target_stride);
      for (int64_t r = 0; r < rows; ++r) {
        if (part.bias != nullptr) AddTo(part.bias + begin - part.first_column, n, target + r * target_stride);
        if (product.adds) AddTo(scratch.sums + r * n, n, out + r * stride + begin);
      }
    }
  });
}

void StoredMath::RunGatedProduct(ggml_tensor* y, int thread, int, void* userdata) {
  auto& product = *static_cast<Product*>(userdata);
  const ggml_tensor* input = y->src[0];
  const int64_t rows = input->ne[1];
  const StoredMath& math = *product.math;
  const Scratch scratch = math.PrepareInput(product, input, thread);
  float* up = scratch.sums;
  auto* gate = static_cast<float*>(y->data);
  const int64_t stride = static_cast<int64_t>(y->nb[1] / sizeof(float));
  const bool is_silu = math.model_.params().activation == Activation::kSilu;
  product.ForShares(product.parts[0].matrix.n, [&](int64_t first, int64_t columns) {
    StoredProduct(product.parts[0].matrix, scratch.prepared, rows, first, columns, gate + first, stride);
    StoredProduct(product.parts[1].matrix, scratch.prepared, rows, first, columns, up, columns);
    for (int64_t r = 0; r < rows; ++r) {
      float* gate_row = gate + r * stride + first;
      float* up_row = up + r * columns;
      if (product.parts[0].bias != nullptr) AddTo(product.parts[0].bias + first, columns, gate_row);
      if (product.parts[1].bias != nullptr) AddTo(product.parts[1].bias + first, columns, up_row);
      is_silu ? SiluMultiply(gate_row, up_row, columns) : GeluMultiply(gate_row, up_row, columns);
    }
  });
}

Projections StoredMath::Project(ggml_context* context, int layer, ggml_tensor* x) {
  const LayerWeights& w = model_.layer(layer);
  if (!AreKnown(w.wq, w.wk, w.wv)) return fallback_.Project(context, layer, x);
  const HyperParams& p = model_.params();
  Product* node = AddNode({w.wq, w.wk, w.wv}, {w.bq, w.bk, w.bv}, w.attn_norm);
  const int64_t rows = x->ne[1];
  ggml_tensor* qkv =
      ggml_custom_4d(context, GGML_TYPE_F32, node->n_columns, rows, 1, 1, &x, 1, RunProduct, GGML_N_TASKS_MAX, node);
  const size_t head_bytes = static_cast<size_t>(p.head_dim) * sizeof(float);
  const auto view = [&](int heads, int part) {
    return ggml_view_3d(context, qkv, p.head_dim, heads, rows, head_bytes, qkv->nb[1],
                        static_cast<size_t>(node->parts[static_cast<size_t>(part)].first_column) * sizeof(float));
  };
  return {view(p.n_heads, 0), view(p.n_kv_heads, 1), view(p.n_kv_heads, 2)};
}

ggml_tensor* StoredMath::AddResidualProduct(ggml_context* context, ggml_tensor* weight, ggml_tensor* bias,
                                            ggml_tensor* input, ggml_tensor* x, ggml_tensor* post_norm) {
  Product* node = AddNode({weight}, {bias}, nullptr);
  if (post_norm == nullptr) {
    node->adds = true;
    return ggml_custom_inplace(context, x, &input, 1, RunProduct, GGML_N_TASKS_MAX, node);
  }
  ggml_tensor* delta = ggml_custom_4d(context, GGML_TYPE_F32, node->n_columns, x->ne[1], 1, 1, &input, 1, RunProduct,
                                      GGML_N_TASKS_MAX, node);
  return AddResidual(context, x, delta, post_norm);
}

ggml_tensor* StoredMath::AddAttentionOutput(ggml_context* context, int layer, ggml_tensor* attention, ggml_tensor* x) {
  const LayerWeights& w = model_.layer(layer);
  if (!AreKnown(w.wo)) return fallback_.AddAttentionOutput(context, layer, attention, x);
  return AddResidualProduct(context, w.wo, w.bo, attention, x, w.attn_post_norm);
}

ggml_tensor* StoredMath::AddFeedForward(ggml_context* context, int layer, ggml_tensor* x) {
  const LayerWeights& w = model_.layer(layer);
  if (!AreKnown(w.w_gate, w.w_up, w.w_down)) return fallback_.AddFeedForward(context, layer, x);
  Product* node = AddNode({w.w_gate, w.w_up}, {w.b_gate, w.b_up}, w.ffn_norm);
  ggml_tensor* hidden = ggml_custom_4d(context, GGML_TYPE_F32, w.w_gate->ne[1], x->ne[1], 1, 1, &x, 1, RunGatedProduct,
                                       GGML_N_TASKS_MAX, node);
  return AddResidualProduct(context, w.w_down, w.b_down, hidden, x, w.ffn_post_norm);
}

ggml_tensor* StoredMath::Output(ggml_context* context, ggml_tensor* x) {
  if (!AreKnown(model_.output())) return LayerMath::Output(context, x);
  Product* node = AddNode({model_.output()}, {nullptr}, model_.output_norm());
  return ggml_custom_4d(context, GGML_TYPE_F32, node->n_columns, x->ne[1], 1, 1, &x, 1, RunProduct, GGML_N_TASKS_MAX,
                        node);
}

}  // namespace loopserve
