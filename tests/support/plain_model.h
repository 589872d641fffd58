// A transformer of the Llama family written down plainly, one token after another in f64, with any mask on its
// attention: what sparse policies are held against end to end. Keys and values are rounded to f16 as the cache has
// them. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/model/model.h"

namespace loopserve {

class PlainModel {
 public:
  /// One KV head's part of a row's attention.
  struct Row {
    int layer = 0;
    int64_t position = 0;
    std::vector<std::vector<double>> queries;  ///< of the KV head's query heads, after RoPE: [group][head_dim]
    const std::vector<std::vector<double>>* keys = nullptr;  ///< [position + 1][head_dim]
  };
  /// Which keys query head `head_in_group` of the row attends: [position + 1].
  using Mask = std::function<std::vector<bool>(const Row& row, int head_in_group)>;

  /// A file with f32 weights, no biases, norms of heads or scaled RoPE. Null otherwise.
  static std::unique_ptr<PlainModel> Load(const std::string& path);

  /// The logits after one more token.
  std::vector<float> Append(int32_t token, const Mask& mask);
  const HyperParams& params() const { return model_->params(); }

 private:
  using Vector = std::vector<double>;
  struct Head {
    std::vector<Vector> keys, values;  // [position][head_dim]
  };
  PlainModel() = default;
  Vector Attend(int layer, const Vector& x, const Mask& mask);

  std::unique_ptr<Model> model_;
  std::vector<Head> heads_;  // [n_layers][n_kv_heads]
  int64_t n_tokens_ = 0;
};

}  // namespace loopserve
