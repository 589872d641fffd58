#include "src/selection/eviction/pyramidkv.h"

#include "src/base/check.h"

namespace loopserve {

int64_t PyramidBudget(const PyramidShape& shape, int layer, int64_t n_tokens) {
  LS_CHECK(shape.beta >= 1 && shape.budget >= shape.window && layer >= 0 && layer < shape.n_layers);
  const int64_t mean = shape.budget - shape.window;  // of older keys
  if (n_tokens < 2 * mean || shape.n_layers == 1) return shape.budget;
  int64_t least = mean / shape.beta;
  int64_t most = 2 * mean - least;
  if (most >= n_tokens - shape.window) {
    most = n_tokens - shape.window;
    least = 2 * mean - most;
  }
  const int64_t step = (most - least) / (shape.n_layers - 1);
  return most - layer * step + shape.window;
}

}  // namespace loopserve
