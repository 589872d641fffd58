// The weights of a transformer and its parameters: a checked GGUF file seen as layers. Weights stay in the file's
// mapping; only small vectors (fused biases) are copied.
// Thread rule: immutable after Load. Ownership: the model owns the file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "loopserve/status.h"
#include "src/gguf/gguf_file.h"
#include "src/model/hyper_params.h"

struct ggml_tensor;

namespace loopserve {

/// Tensors of one layer, ggml shapes [in, out]; biases and absent norms are null where the model has none.
struct LayerWeights {
  ggml_tensor* attn_norm = nullptr;  ///< f32 [n_embd]
  ggml_tensor* wq = nullptr;         ///< [n_embd, n_heads * head_dim]
  ggml_tensor* wk = nullptr;         ///< [n_embd, n_kv_heads * head_dim]
  ggml_tensor* wv = nullptr;         ///< [n_embd, n_kv_heads * head_dim]
  ggml_tensor* wo = nullptr;         ///< [n_heads * head_dim, n_embd]
  ggml_tensor* bq = nullptr;
  ggml_tensor* bk = nullptr;
  ggml_tensor* bv = nullptr;
  ggml_tensor* bo = nullptr;
  ggml_tensor* q_norm = nullptr;  ///< f32 [head_dim]
  ggml_tensor* k_norm = nullptr;  ///< f32 [head_dim]
  ggml_tensor* attn_post_norm = nullptr;
  ggml_tensor* ffn_norm = nullptr;
  ggml_tensor* w_gate = nullptr;  ///< [n_embd, n_ff]
  ggml_tensor* w_up = nullptr;    ///< [n_embd, n_ff]
  ggml_tensor* w_down = nullptr;  ///< [n_ff, n_embd]
  ggml_tensor* b_gate = nullptr;
  ggml_tensor* b_up = nullptr;
  ggml_tensor* b_down = nullptr;
  ggml_tensor* ffn_post_norm = nullptr;
};

class Model {
 public:
  /// Errors: kUnsupported (family, shape or tensor that this library does not run), kCorruptData (missing tensor, wrong
  /// shape or type; names the tensor).
  static Result<std::unique_ptr<Model>> Load(std::unique_ptr<GgufFile> file);

  const HyperParams& params() const { return params_; }
  const GgufFile& file() const { return *file_; }
  const LayerWeights& layer(int i) const { return layers_[i]; }
  ggml_tensor* token_embedding() const { return token_embedding_; }  ///< [n_embd, n_vocab]
  ggml_tensor* output_norm() const { return output_norm_; }          ///< f32 [n_embd]
  ggml_tensor* output() const { return output_; }                    ///< [n_embd, n_vocab]; may be token_embedding()
  ggml_tensor* rope_factors() const { return rope_factors_; }        ///< f32 [n_dims / 2] or null (Llama 3)
  int64_t n_parameters() const { return n_parameters_; }
  /// Parameters in the matrices that every token passes (without the embedding table and the output matrix).
  int64_t n_layer_parameters() const { return n_layer_parameters_; }

 private:
  friend class ModelLoader;
  Model() = default;

  std::unique_ptr<GgufFile> file_;
  HyperParams params_;
  std::vector<LayerWeights> layers_;
  ggml_tensor* token_embedding_ = nullptr;
  ggml_tensor* output_norm_ = nullptr;
  ggml_tensor* output_ = nullptr;
  ggml_tensor* rope_factors_ = nullptr;
  int64_t n_parameters_ = 0;
  int64_t n_layer_parameters_ = 0;
};

}  // namespace loopserve
