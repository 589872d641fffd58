// A plain transformer for tests: the Llama block (and Qwen2's, with biases) in f64 over f32 weights, every row one
// after another, attending what a test lets it. Keys and values are rounded as the cache stores them.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "ggml.h"
#include "src/base/check.h"
#include "src/kernels/attention.h"
#include "src/model/heads.h"
#include "src/model/rope_table.h"

namespace loopserve::testing {

struct PlainAttention {
  /// Whether a row attends a key that does not stand behind it.
  std::function<bool(int layer, int kv_head, int64_t row, int64_t key)> attends;
  /// Sees every softmax weight; may be empty.
  std::function<void(int layer, int head, int64_t row, int64_t key, double weight)> on_weight;
};

class PlainTransformer {
 public:
  PlainTransformer(const Model& model, ComputeThreads& threads, KvType type)
      : model_(model), threads_(threads), type_(type) {}

  /// f32 [tokens][n_vocab].
  std::vector<std::vector<float>> Logits(std::span<const int32_t> tokens, const PlainAttention& attention) const {
    const HyperParams& p = model_.params();
    RopeTable rope(model_);
    std::vector<int32_t> positions;
    for (size_t i = 0; i < tokens.size(); ++i) positions.push_back(static_cast<int32_t>(i));
    LS_CHECK(rope.Fill(positions, threads_).ok());
    std::vector<Row> x;
    for (const int32_t token : tokens) {
      const float* row = Floats(model_.token_embedding()) + int64_t{token} * p.n_embd;
      x.emplace_back(row, row + p.n_embd);
      for (double& value : x.back()) value *= p.embedding_scale;
    }
    for (int layer = 0; layer < p.n_layers; ++layer) RunLayer(layer, rope, attention, &x);
    std::vector<std::vector<float>> logits;
    for (const Row& row : x) {
      const Row out = Multiply(model_.output(), nullptr, Norm(row, model_.output_norm()));
      logits.emplace_back(out.begin(), out.end());
    }
    return logits;
  }

 private:
  using Row = std::vector<double>;

  static const float* Floats(const ggml_tensor* tensor) {
    LS_CHECK(tensor->type == GGML_TYPE_F32);
    return static_cast<const float*>(tensor->data);
  }
  Row Norm(const Row& x, const ggml_tensor* weight) const {
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + model_.params().rms_eps);
    Row out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * Floats(weight)[i];
    return out;
  }
  static Row Multiply(const ggml_tensor* matrix, const ggml_tensor* bias, const Row& x) {
    Row out(static_cast<size_t>(matrix->ne[1]));
    for (size_t o = 0; o < out.size(); ++o) {
      const float* row = Floats(matrix) + o * x.size();
      double sum = bias != nullptr ? Floats(bias)[o] : 0.0;
      for (size_t i = 0; i < x.size(); ++i) sum += x[i] * row[i];
      out[o] = sum;
    }
    return out;
  }
  /// What comes back of a row of heads from the cache.
  Row Stored(const std::vector<float>& row) const {
    const auto dim = static_cast<size_t>(model_.params().head_dim);
    std::vector<float> out(row.size());
    std::vector<std::byte> bytes(KvRowBytes(type_, model_.params().head_dim));
    for (size_t first = 0; first < row.size(); first += dim) {
      StoreKvRow(type_, row.data() + first, static_cast<int>(dim), bytes.data());
      LoadKvRow(type_, bytes.data(), static_cast<int>(dim), out.data() + first);
    }
    return {out.begin(), out.end()};
  }

  void RunLayer(int layer, const RopeTable& rope, const PlainAttention& attention, std::vector<Row>* x) const {
    const LayerWeights& w = model_.layer(layer);
    std::vector<std::vector<float>> q;
    std::vector<Row> k, v;
    for (size_t r = 0; r < x->size(); ++r) {
      const Row h = Norm((*x)[r], w.attn_norm);
      const float* turns = rope.Row(false, static_cast<int64_t>(r));
      const Row query = Multiply(w.wq, w.bq, h), key = Multiply(w.wk, w.bk, h), value = Multiply(w.wv, w.bv, h);
      q.emplace_back(query.begin(), query.end());
      FinishQueries(model_, layer, turns, q.back().data());
      std::vector<float> turned(key.begin(), key.end());
      FinishKeys(model_, layer, turns, turned.data());
      k.push_back(Stored(turned));
      v.push_back(Stored({value.begin(), value.end()}));
    }
    for (size_t r = 0; r < x->size(); ++r) {
      Row out = Attend(layer, static_cast<int64_t>(r), q[r], k, v, attention);
      out = Multiply(w.wo, w.bo, out);
      for (size_t i = 0; i < out.size(); ++i) (*x)[r][i] += out[i];
      const Row h = Norm((*x)[r], w.ffn_norm);
      Row gate = Multiply(w.w_gate, w.b_gate, h);
      const Row up = Multiply(w.w_up, w.b_up, h);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      const Row down = Multiply(w.w_down, w.b_down, gate);
      for (size_t i = 0; i < down.size(); ++i) (*x)[r][i] += down[i];
    }
  }

  Row Attend(int layer, int64_t row, const std::vector<float>& q, const std::vector<Row>& k, const std::vector<Row>& v,
             const PlainAttention& attention) const {
    const HyperParams& p = model_.params();
    Row out(static_cast<size_t>(p.q_width()), 0.0);
    for (int head = 0; head < p.n_heads; ++head) {
      const int kv_head = head / (p.n_heads / p.n_kv_heads);
      const size_t own = static_cast<size_t>(head) * static_cast<size_t>(p.head_dim);
      const size_t column = static_cast<size_t>(kv_head) * static_cast<size_t>(p.head_dim);
      std::vector<int64_t> keys;
      Row weights;
      for (int64_t t = 0; t <= row; ++t) {
        if (!attention.attends(layer, kv_head, row, t)) continue;
        double score = 0;
        for (size_t i = 0; i < static_cast<size_t>(p.head_dim); ++i) {
          score += q[own + i] * k[static_cast<size_t>(t)][column + i];
        }
        keys.push_back(t);
        weights.push_back(score * p.attention_scale);
      }
      const double largest = *std::ranges::max_element(weights);
      double sum = 0;
      for (double& weight : weights) sum += weight = std::exp(weight - largest);
      for (size_t n = 0; n < keys.size(); ++n) {
        const double weight = weights[n] / sum;
        if (attention.on_weight) attention.on_weight(layer, head, row, keys[n], weight);
        for (size_t i = 0; i < static_cast<size_t>(p.head_dim); ++i) {
          out[own + i] += weight * v[static_cast<size_t>(keys[n])][column + i];
        }
      }
    }
    return out;
  }

  const Model& model_;
  ComputeThreads& threads_;
  KvType type_;
};

}  // namespace loopserve::testing
