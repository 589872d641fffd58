// The choice of key tiles for one block of rows of one head: the fewest tiles that hold a share of the attention
// weight, estimated from a few rows of the block. Tiles cost the same each, so the greedy order by weight is the best
// one. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

struct TileProblem {
  /// Estimated weight of the block's rows on every tile that they see, f32 [n_tiles].
  std::span<const float> mass;
  /// Tiles from here on hold the block's own keys: always taken, as is tile 0, whose first key is the attention sink.
  int64_t first_own_tile = 0;
};

/// Ascending tiles that hold at least `alpha` of the estimated weight. All if alpha is 1 or the weights are not finite.
/// `scratch` is reused memory.
void ChooseTiles(const TileProblem& problem, double alpha, std::vector<uint64_t>* scratch, std::vector<int32_t>* tiles);

}  // namespace loopserve
