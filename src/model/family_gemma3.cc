// Gemma 3: five sliding-window layers to one global layer, norms before and after each block, normed Q and K, scaled
// embeddings, GELU.
#include <cmath>

#include "ggml.h"
#include "src/model/family.h"

namespace loopserve {
namespace {

constexpr uint64_t kDefaultPattern = 6;  // every sixth layer is global
constexpr int kLayersOf27B = 62;         // the one size with another attention scale
constexpr double kDefaultSlidingBase = 10000.0;

Status ReadSlidingLayers(const GgufFile& file, HyperParams* params) {
  LS_ASSIGN_OR_RETURN(const auto window, file.FindUint("gemma3.attention.sliding_window"));
  if (window.value_or(0) == 0) return Status::Ok();
  params->sliding_window = static_cast<int64_t>(std::min<uint64_t>(*window, uint64_t{1} << 40));
  const std::string key = "gemma3.attention.sliding_window_pattern";
  if (auto flags = file.FindBoolArray(key); flags.ok() && *flags) {
    if ((*flags)->size() < params->is_sliding_layer.size()) {
      return Status(StatusCode::kCorruptData, "'" + key + "' has fewer entries than there are layers");
    }
    for (size_t i = 0; i < params->is_sliding_layer.size(); ++i) params->is_sliding_layer[i] = (**flags)[i];
    return Status::Ok();
  }
  LS_ASSIGN_OR_RETURN(const auto pattern_key, file.FindUint(key));
  const uint64_t pattern = pattern_key.value_or(kDefaultPattern);
  for (size_t i = 0; i < params->is_sliding_layer.size(); ++i) {
    params->is_sliding_layer[i] = pattern == 0 || i % pattern < pattern - 1;
  }
  return Status::Ok();
}

}  // namespace

Result<HyperParams> ReadGemma3(const GgufFile& file) {
  LS_ASSIGN_OR_RETURN(HyperParams params, ReadCommonHyperParams(file, GGML_ROPE_TYPE_NEOX));
  LS_RETURN_IF_ERROR(ReadSlidingLayers(file, &params));
  LS_ASSIGN_OR_RETURN(const auto sliding_base, file.FindFloat("gemma3.rope.freq_base_swa"));
  params.rope.freq_base_sliding = static_cast<float>(sliding_base.value_or(kDefaultSlidingBase));
  if (!(params.rope.freq_base_sliding > 0)) {
    return Status(StatusCode::kCorruptData, "'gemma3.rope.freq_base_swa' is not positive");
  }
  LS_ASSIGN_OR_RETURN(const auto softcap, file.FindFloat("gemma3.final_logit_softcapping"));
  params.final_softcap = static_cast<float>(softcap.value_or(0.0));
  params.qk_norm = true;
  params.post_norms = true;
  params.activation = Activation::kGelu;
  params.embedding_scale = std::sqrt(static_cast<float>(params.n_embd));
  if (params.n_layers == kLayersOf27B) {
    params.attention_scale = 1.0f / std::sqrt(static_cast<float>(params.n_embd) / static_cast<float>(params.n_heads));
  }
  return params;
}

}  // namespace loopserve
