#include "src/model/family.h"

#include <cmath>
#include <string>

namespace loopserve {
namespace {

constexpr Family kFamilies[] = {
    {"llama", ReadLlama},
    {"qwen2", ReadQwen2},
    {"qwen3", ReadQwen3},
    {"gemma3", ReadGemma3},
};

// Bounds that no real model comes near: they keep products of counts far from overflow.
constexpr uint64_t kMaxLayers = 1024;
constexpr uint64_t kMaxWidth = 1 << 20;
constexpr uint64_t kMaxHeads = 1024;
constexpr uint64_t kMaxHeadSize = 512;
constexpr uint64_t kMaxContext = 1 << 26;

/// A key that may be one number or one number a layer; layers that differ are not supported.
Result<uint64_t> RequireUniform(const GgufFile& file, const std::string& key, size_t n_layers, uint64_t max) {
  LS_ASSIGN_OR_RETURN(const auto values, file.FindUintOrArray(key, n_layers));
  if (!values || values->empty()) return Status(StatusCode::kCorruptData, "the key '" + key + "' is missing");
  for (const uint64_t value : *values) {
    if (value != values->front()) {
      return Status(StatusCode::kUnsupported, "'" + key + "' differs between layers, which is not supported");
    }
  }
  if (values->front() < 1 || values->front() > max) {
    return Status(StatusCode::kCorruptData,
                  "'" + key + "' is " + std::to_string(values->front()) + ", outside 1 to " + std::to_string(max));
  }
  return values->front();
}

Status ReadYarn(const GgufFile& file, const std::string& prefix, RopeParams* rope) {
  LS_ASSIGN_OR_RETURN(const auto ext, file.FindFloat(prefix + "rope.scaling.yarn_ext_factor"));
  LS_ASSIGN_OR_RETURN(const auto fast, file.FindFloat(prefix + "rope.scaling.yarn_beta_fast"));
  LS_ASSIGN_OR_RETURN(const auto slow, file.FindFloat(prefix + "rope.scaling.yarn_beta_slow"));
  LS_ASSIGN_OR_RETURN(const auto log_mul, file.FindFloat(prefix + "rope.scaling.yarn_log_multiplier"));
  if (log_mul && *log_mul != 0) {
    return Status(StatusCode::kUnsupported, "'rope.scaling.yarn_log_multiplier' is not supported");
  }
  rope->ext_factor = static_cast<float>(ext && *ext >= 0 ? *ext : 1.0);
  rope->beta_fast = static_cast<float>(fast.value_or(32.0));
  rope->beta_slow = static_cast<float>(slow.value_or(1.0));
  // ggml_rope multiplies by 1 + 0.1 ln(factor) itself, which is the published attention factor: nothing is left to do
  // here, and factors below 1 (which the paper does not define) keep llama.cpp's behaviour.
  const float factor = 1.0f / rope->freq_scale;
  if (rope->ext_factor != 0.0f && factor < 1.0f) rope->attn_factor /= 1.0f + 0.1f * std::log(factor);
  return Status::Ok();
}

Status ReadRope(const GgufFile& file, const std::string& prefix, RopeParams* rope, const HyperParams& params) {
  LS_ASSIGN_OR_RETURN(const auto n_dims, file.FindUint(prefix + "rope.dimension_count"));
  rope->n_dims = static_cast<int>(n_dims.value_or(params.head_dim));
  if (n_dims && (*n_dims == 0 || *n_dims > static_cast<uint64_t>(params.head_dim) || *n_dims % 2 != 0)) {
    return Status(StatusCode::kCorruptData, "'" + prefix + "rope.dimension_count' is " + std::to_string(*n_dims) +
                                                ", but heads have " + std::to_string(params.head_dim) + " elements");
  }
  LS_ASSIGN_OR_RETURN(const auto base, file.FindFloat(prefix + "rope.freq_base"));
  rope->freq_base = static_cast<float>(base.value_or(10000.0));
  LS_ASSIGN_OR_RETURN(const auto orig, file.FindUint(prefix + "rope.scaling.original_context_length"));
  rope->n_ctx_orig = static_cast<int>(std::min<uint64_t>(orig.value_or(params.context_tokens), kMaxContext));
  LS_ASSIGN_OR_RETURN(auto factor, file.FindFloat(prefix + "rope.scaling.factor"));
  if (!factor) {
    LS_ASSIGN_OR_RETURN(factor, file.FindFloat(prefix + "rope.scale_linear"));
  }
  LS_ASSIGN_OR_RETURN(const auto attn, file.FindFloat(prefix + "rope.scaling.attn_factor"));
  rope->attn_factor = static_cast<float>(attn.value_or(1.0));
  LS_ASSIGN_OR_RETURN(const auto type_key, file.FindString(prefix + "rope.scaling.type"));
  const std::string type = type_key.value_or("linear");
  if (!(rope->freq_base > 0) || (factor && !(*factor >= 0))) {
    return Status(StatusCode::kCorruptData, "the RoPE base or scaling factor is not positive");
  }
  if (type == "none") return Status::Ok();
  rope->freq_scale = factor && *factor > 0 ? static_cast<float>(1.0 / *factor) : 1.0f;
  if (type == "yarn") return ReadYarn(file, prefix, rope);
  if (type != "linear") {
    return Status(StatusCode::kUnsupported, "RoPE scaling '" + type + "' is not supported (none, linear and yarn are)");
  }
  return Status::Ok();
}

}  // namespace

Result<HyperParams> ReadHyperParams(const GgufFile& file) {
  const std::string name = file.Architecture();
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.name == name) return family.read(file);
    known += (known.empty() ? "" : ", ") + std::string(family.name);
  }
  if (name.empty()) return Status(StatusCode::kCorruptData, "the key 'general.architecture' is missing");
  return Status(StatusCode::kUnsupported,
                "the model family '" + name + "' is not supported; supported families: " + known);
}

Result<HyperParams> ReadCommonHyperParams(const GgufFile& file, int rope_mode) {
  HyperParams params;
  params.family = file.Architecture();
  const std::string prefix = params.family + ".";
  LS_ASSIGN_OR_RETURN(const uint64_t n_layers, file.RequireUint(prefix + "block_count", 1, kMaxLayers));
  LS_ASSIGN_OR_RETURN(const uint64_t n_embd, file.RequireUint(prefix + "embedding_length", 1, kMaxWidth));
  LS_ASSIGN_OR_RETURN(const uint64_t context, file.RequireUint(prefix + "context_length", 1, kMaxContext));
  LS_ASSIGN_OR_RETURN(const uint64_t n_ff, RequireUniform(file, prefix + "feed_forward_length", n_layers, kMaxWidth));
  LS_ASSIGN_OR_RETURN(const uint64_t n_heads,
                      RequireUniform(file, prefix + "attention.head_count", n_layers, kMaxHeads));
  uint64_t n_kv_heads = n_heads;
  LS_ASSIGN_OR_RETURN(const auto kv_key, file.FindUintOrArray(prefix + "attention.head_count_kv", n_layers));
  if (kv_key) {
    LS_ASSIGN_OR_RETURN(n_kv_heads, RequireUniform(file, prefix + "attention.head_count_kv", n_layers, kMaxHeads));
  }
  LS_ASSIGN_OR_RETURN(const auto key_length, file.FindUint(prefix + "attention.key_length"));
  LS_ASSIGN_OR_RETURN(const auto value_length, file.FindUint(prefix + "attention.value_length"));
  const uint64_t head_dim = key_length.value_or(n_embd / n_heads);
  if (value_length.value_or(head_dim) != head_dim) {
    return Status(StatusCode::kUnsupported, "keys and values of different sizes are not supported");
  }
  if (n_heads % n_kv_heads != 0) {
    return Status(StatusCode::kCorruptData,
                  std::to_string(n_heads) + " heads cannot share " + std::to_string(n_kv_heads) + " KV heads evenly");
  }
  if (head_dim < 8 || head_dim > kMaxHeadSize || head_dim % 8 != 0) {
    return Status(StatusCode::kUnsupported, "a head size of " + std::to_string(head_dim) +
                                                " is not supported (multiples of 8 from 8 to 512 are)");
  }
  LS_ASSIGN_OR_RETURN(const auto n_experts, file.FindUint(prefix + "expert_count"));
  if (n_experts.value_or(0) > 0) {
    return Status(StatusCode::kUnsupported, "mixture-of-experts models are not supported");
  }
  LS_ASSIGN_OR_RETURN(const double eps, file.RequireFloat(prefix + "attention.layer_norm_rms_epsilon"));
  if (!(eps >= 0 && eps < 1)) return Status(StatusCode::kCorruptData, "the RMS norm epsilon is outside [0, 1)");

  params.n_layers = static_cast<int>(n_layers);
  params.n_embd = static_cast<int>(n_embd);
  params.context_tokens = static_cast<int64_t>(context);
  params.n_ff = static_cast<int>(n_ff);
  params.n_heads = static_cast<int>(n_heads);
  params.n_kv_heads = static_cast<int>(n_kv_heads);
  params.head_dim = static_cast<int>(head_dim);
  params.rms_eps = static_cast<float>(eps);
  params.attention_scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  params.is_sliding_layer.assign(n_layers, false);
  params.rope.mode = rope_mode;
  LS_RETURN_IF_ERROR(ReadRope(file, prefix, &params.rope, params));
  return params;
}

}  // namespace loopserve
