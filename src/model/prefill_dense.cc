#include "src/model/prefill_methods.h"

namespace loopserve {

Status PrefillDense(const PrefillLayer& layer) {
  return layer.ForItems(PrefillItemCount(layer.problem), [&](int64_t item, PrefillThread& state) {
    PrefillAttentionItem(layer.problem, layer.math, layer.packed_read.data(), item, state.scratch.data());
  });
}

}  // namespace loopserve
