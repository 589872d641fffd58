// The choice of key tiles for one block of rows of one head: the fewest tiles that hold a share of the attention
// weight, estimated from a few rows of the block. Tiles cost the same each, so the greedy order by weight is the best
// one. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

struct TileProblem {
  /// Weight of the sampled rows on every tile that the block sees, f32 [n_tiles]; sums to the number of rows.
  std::span<const float> mass;
  /// The same of the block of rows before, f32 [<= n_tiles]; may be empty.
  std::span<const float> mass_before;
  /// How many tiles the block before lies behind: where a slash line that it met is met by this block.
  int64_t shift_tiles = 0;
  /// Tiles from here on hold the block's own keys: always taken, as is tile 0, whose first key is the attention sink.
  int64_t first_own_tile = 0;
};

/// Ascending tiles that hold at least `alpha` of the estimated weight. The estimate is `mass`, mixed with `hint` parts
/// of mass_before, half at the same tiles (vertical lines go on) and half shifted (slash lines go on). All tiles if
/// alpha is 1 or the weights are not finite. `scratch` is reused memory.
void ChooseTiles(const TileProblem& problem, double alpha, double hint, std::vector<float>* scratch,
                 std::vector<int32_t>* tiles);

}  // namespace loopserve
