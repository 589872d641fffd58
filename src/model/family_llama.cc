// Llama 1 to 3.x, SmolLM2, Mistral and what else is stored under "llama". Llama 3's RoPE scaling arrives as the tensor
// rope_freqs.weight, which the model loads with the weights.
#include "ggml.h"
#include "src/model/family.h"

namespace loopserve {

Result<HyperParams> ReadLlama(const GgufFile& file) {
  LS_ASSIGN_OR_RETURN(HyperParams params, ReadCommonHyperParams(file, GGML_ROPE_TYPE_NORMAL));
  if (params.rope.n_dims != params.head_dim) {
    return Status(StatusCode::kCorruptData, "llama models rotate whole heads, but 'llama.rope.dimension_count' is " +
                                                std::to_string(params.rope.n_dims) + " of " +
                                                std::to_string(params.head_dim));
  }
  return params;
}

}  // namespace loopserve
