// Qwen2 and Qwen2.5: Llama's block with biases on Q, K and V (found by their tensors) and half-split RoPE.
#include "ggml.h"
#include "src/model/family.h"

namespace loopserve {

Result<HyperParams> ReadQwen2(const GgufFile& file) { return ReadCommonHyperParams(file, GGML_ROPE_TYPE_NEOX); }

}  // namespace loopserve
