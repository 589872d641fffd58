// PyramidKV (arXiv 2406.02069): SnapKV's choice (snapkv.h) with a budget that falls linearly from the first layer to
// the last. Pure functions.
#pragma once

#include <cstdint>

namespace loopserve {

struct PyramidShape {
  int64_t budget = 0;  ///< positions of a KV head, mean over the layers, the window included
  int64_t window = 0;
  int beta = 1;  ///< the last layer's older keys are 1/beta of the mean's
  int n_layers = 0;
};

/// Positions that a KV head of the layer-th of shape.n_layers layers keeps of a context of n_tokens, the window
/// included, by the published integer formula: where the first layer's share would be more than there is, the line
/// turns flatter, and contexts below twice the mean budget are shared out evenly.
int64_t PyramidBudget(const PyramidShape& shape, int layer, int64_t n_tokens);

}  // namespace loopserve
