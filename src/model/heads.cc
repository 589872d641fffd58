#include "src/model/heads.h"

#include "ggml.h"
#include "src/kernels/elementwise.h"
#include "src/kernels/rope.h"

namespace loopserve {
namespace {

void Finish(const HyperParams& params, const ggml_tensor* norm, const float* turns, int n_heads, float* heads) {
  const int head_dim = params.head_dim;
  if (norm != nullptr) {
    const auto* weight = static_cast<const float*>(norm->data);
    for (int h = 0; h < n_heads; ++h) {
      RmsNormalize(heads + h * head_dim, weight, head_dim, params.rms_eps, heads + h * head_dim);
    }
  }
  const bool halves = params.rope.mode == GGML_ROPE_TYPE_NEOX;
  RotateHeads(turns, params.rope.n_dims / 2, halves ? RopePairs::kHalves : RopePairs::kNeighbours, n_heads, head_dim,
              heads);
}

}  // namespace

void FinishQueries(const Model& model, int layer, const float* turns, float* q) {
  Finish(model.params(), model.layer(layer).q_norm, turns, model.params().n_heads, q);
}

void FinishKeys(const Model& model, int layer, const float* turns, float* k) {
  Finish(model.params(), model.layer(layer).k_norm, turns, model.params().n_kv_heads, k);
}

}  // namespace loopserve
