// Qwen3 (dense): Q and K of each head are RMS-normed before RoPE; no biases.
#include "ggml.h"
#include "src/model/family.h"

namespace loopserve {

Result<HyperParams> ReadQwen3(const GgufFile& file) {
  LS_ASSIGN_OR_RETURN(HyperParams params, ReadCommonHyperParams(file, GGML_ROPE_TYPE_NEOX));
  params.qk_norm = true;
  return params;
}

}  // namespace loopserve
