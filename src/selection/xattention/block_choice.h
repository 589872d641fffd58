// Which blocks of keys XAttention computes for a block of rows (Xu et al., arXiv 2503.16428): by the attention of
// groups of neighbouring rows on groups of neighbouring keys, estimated from the antidiagonals of their scores
// (kernels/antidiagonal.h). Pure functions.
//
// Blocks are of positions, for rows and keys alike: block b of a size n holds positions [n b, n b + n).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// Adds a row group's weights (f32, by key group, each row group's sum to 1) to the blocks that the key groups lie in.
void AddGroupWeights(std::span<const float> weights, int64_t groups_per_block, std::span<float> blocks);

/// blocks: estimated weight of a row block on key blocks [0, its own], f32, not empty. Ascending blocks: the first and
/// the own always, then the heaviest until they hold at least `threshold` of all, the lower index among equals. All if
/// the weights are not finite.
std::vector<int32_t> ChooseBlocks(std::span<const float> blocks, double threshold);

}  // namespace loopserve
