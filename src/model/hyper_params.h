// What a model file says about its transformer, in one family-independent form. Filled by the family files, read by the
// graph builder. Thread rule: a value, immutable after loading.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace loopserve {

enum class Activation : uint8_t { kSilu, kGelu };

/// Rotary position embedding, with ggml_rope_ext's parameters (YaRN: arXiv 2309.00071).
struct RopeParams {
  int mode = 0;  ///< GGML_ROPE_TYPE_NORMAL (pairs of neighbours) or GGML_ROPE_TYPE_NEOX (halves)
  int n_dims = 0;
  float freq_base = 10000.0f;
  float freq_scale = 1.0f;
  float freq_base_sliding = 10000.0f;  ///< of sliding-window layers, which are never scaled
  int n_ctx_orig = 0;
  float ext_factor = 0.0f;
  float attn_factor = 1.0f;
  float beta_fast = 32.0f;
  float beta_slow = 1.0f;
};

struct HyperParams {
  std::string family;
  int n_layers = 0;
  int n_embd = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int n_ff = 0;
  int n_vocab = 0;
  int64_t context_tokens = 0;
  float rms_eps = 1e-5f;
  float attention_scale = 0.0f;
  float embedding_scale = 1.0f;
  float final_softcap = 0.0f;  ///< logits become cap * tanh(logits / cap); 0 = off
  Activation activation = Activation::kSilu;
  RopeParams rope;
  bool qk_norm = false;        ///< RMS norm over each head of Q and K before RoPE (required tensors)
  bool post_norms = false;     ///< RMS norm after attention and after the feed-forward block (required tensors)
  int64_t sliding_window = 0;  ///< keys that a sliding layer sees
  std::vector<bool> is_sliding_layer;

  int q_width() const { return n_heads * head_dim; }
  int kv_width() const { return n_kv_heads * head_dim; }
  bool has_sliding_layers() const { return std::ranges::find(is_sliding_layer, true) != is_sliding_layer.end(); }
  int64_t window(int layer) const { return is_sliding_layer[layer] ? sliding_window : 0; }
};

}  // namespace loopserve
