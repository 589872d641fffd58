#include "tests/support/plain_model.h"

#include <cmath>
#include <cstring>

#include "ggml.h"
#include "src/kernels/attention.h"

namespace loopserve {
namespace {

using Vector = std::vector<double>;

const float* Data(const ggml_tensor* tensor) { return static_cast<const float*>(tensor->data); }

Vector Product(const ggml_tensor* matrix, const Vector& x) {
  Vector y(static_cast<size_t>(matrix->ne[1]), 0.0);
  for (size_t row = 0; row < y.size(); ++row) {
    for (size_t i = 0; i < x.size(); ++i) y[row] += x[i] * Data(matrix)[row * x.size() + i];
  }
  return y;
}

Vector RmsNorm(const Vector& x, const ggml_tensor* weight, double eps) {
  double square = 0;
  for (const double v : x) square += v * v / static_cast<double>(x.size());
  Vector y = x;
  for (size_t i = 0; i < y.size(); ++i) y[i] *= Data(weight)[i] / std::sqrt(square + eps);
  return y;
}

/// Head `head` of a projection.
Vector HeadOf(const Vector& heads, int head, int head_dim) {
  return {heads.begin() + head * head_dim, heads.begin() + (head + 1) * head_dim};
}

/// Pairs of neighbours, turned by position / base^(2 i / n_dims).
void Rotate(const RopeParams& rope, int64_t position, Vector* head) {
  for (size_t i = 0; i < static_cast<size_t>(rope.n_dims); i += 2) {
    const double angle = static_cast<double>(position) *
                         std::pow(double{rope.freq_base}, -static_cast<double>(i) / static_cast<double>(rope.n_dims));
    const double x = (*head)[i];
    const double y = (*head)[i + 1];
    (*head)[i] = x * std::cos(angle) - y * std::sin(angle);
    (*head)[i + 1] = x * std::sin(angle) + y * std::cos(angle);
  }
}

Vector AsCached(const Vector& head) {
  std::vector<float> row(head.begin(), head.end());
  std::vector<std::byte> stored(KvRowBytes(KvType::kF16, static_cast<int>(row.size())));
  StoreKvRow(KvType::kF16, row.data(), static_cast<int>(row.size()), stored.data());
  LoadKvRow(KvType::kF16, stored.data(), static_cast<int>(row.size()), row.data());
  return {row.begin(), row.end()};
}

void AddTo(const Vector& delta, Vector* x) {
  for (size_t i = 0; i < x->size(); ++i) (*x)[i] += delta[i];
}

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

std::unique_ptr<PlainModel> PlainModel::Load(const std::string& path) {
  auto file = GgufFile::Open(path);
  if (!file.ok()) return nullptr;
  auto model = Model::Load(std::move(*file));
  if (!model.ok()) return nullptr;
  const HyperParams& p = (*model)->params();
  const bool is_plain = (*model)->rope_factors() == nullptr && p.rope.freq_scale == 1 && p.rope.ext_factor == 0 &&
                        p.rope.mode == GGML_ROPE_TYPE_NORMAL && !p.qk_norm && !p.post_norms &&
                        !p.has_sliding_layers() && p.activation == Activation::kSilu && p.final_softcap == 0 &&
                        p.embedding_scale == 1 && (*model)->layer(0).bq == nullptr &&
                        (*model)->layer(0).bo == nullptr && (*model)->layer(0).wq->type == GGML_TYPE_F32 &&
                        (*model)->token_embedding()->type == GGML_TYPE_F32;
  if (!is_plain) return nullptr;
  std::unique_ptr<PlainModel> plain(new PlainModel);
  plain->heads_.resize(static_cast<size_t>(p.n_layers * p.n_kv_heads));
  plain->model_ = std::move(*model);
  return plain;
}

Vector PlainModel::Attend(int layer, const Vector& x, const Mask& mask) {
  const HyperParams& p = params();
  const LayerWeights& w = model_->layer(layer);
  const Vector q = Product(w.wq, x), k = Product(w.wk, x), v = Product(w.wv, x);
  const int group = p.n_heads / p.n_kv_heads;
  Vector out;
  for (int kv_head = 0; kv_head < p.n_kv_heads; ++kv_head) {
    Head& head = heads_[static_cast<size_t>(layer * p.n_kv_heads + kv_head)];
    Vector key = HeadOf(k, kv_head, p.head_dim);
    Rotate(p.rope, n_tokens_, &key);
    head.keys.push_back(AsCached(key));
    head.values.push_back(AsCached(HeadOf(v, kv_head, p.head_dim)));
    Row row = {layer, n_tokens_, {}, &head.keys};
    for (int i = 0; i < group; ++i) {
      row.queries.push_back(HeadOf(q, kv_head * group + i, p.head_dim));
      Rotate(p.rope, n_tokens_, &row.queries.back());
    }
    for (int i = 0; i < group; ++i) {
      const std::vector<bool> attended = mask(row, i);
      Vector total(static_cast<size_t>(p.head_dim), 0.0);
      double sum = 0;
      for (size_t t = 0; t < head.keys.size(); ++t) {
        if (!attended[t]) continue;
        const double weight = std::exp(p.attention_scale * Dot(row.queries[static_cast<size_t>(i)], head.keys[t]));
        sum += weight;
        for (size_t d = 0; d < total.size(); ++d) total[d] += weight * head.values[t][d];
      }
      for (const double part : total) out.push_back(part / sum);
    }
  }
  return out;
}

std::vector<float> PlainModel::Append(int32_t token, const Mask& mask) {
  const HyperParams& p = params();
  const auto width = static_cast<size_t>(p.n_embd);
  const float* embedding = Data(model_->token_embedding()) + static_cast<size_t>(token) * width;
  Vector x(embedding, embedding + width);
  for (int layer = 0; layer < p.n_layers; ++layer) {
    const LayerWeights& w = model_->layer(layer);
    AddTo(Product(w.wo, Attend(layer, RmsNorm(x, w.attn_norm, p.rms_eps), mask)), &x);
    const Vector normed = RmsNorm(x, w.ffn_norm, p.rms_eps);
    Vector hidden = Product(w.w_gate, normed);
    const Vector up = Product(w.w_up, normed);
    for (size_t i = 0; i < hidden.size(); ++i) hidden[i] *= up[i] / (1 + std::exp(-hidden[i]));
    AddTo(Product(w.w_down, hidden), &x);
  }
  ++n_tokens_;
  const Vector logits = Product(model_->output(), RmsNorm(x, model_->output_norm(), p.rms_eps));
  return {logits.begin(), logits.end()};
}

}  // namespace loopserve
