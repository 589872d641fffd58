// Which blocks of 128 keys FlexPrefill computes for a head (Lai et al., arXiv 2502.20766): vertical and slash blocks by
// the attention of the turn's last rows; where the means of queries and keys predict that attention well enough, also
// the blocks that the means say. Pure functions.
//
// Blocks are of positions, for rows and keys alike: block b holds positions [128 b, 128 b + 128).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/selection/lines/line_choice.h"

namespace loopserve {

inline constexpr int64_t kFlexBlock = 128;
/// Rows whose attention decides: the last of the turn.
inline constexpr int64_t kFlexRows = kFlexBlock;

struct FlexProblem {
  int64_t first_position = 0;  ///< of the turn's rows, which end at n_keys - 1
  int64_t n_keys = 0;
  SampledRows rows;  ///< the last kFlexRows rows of the turn, or all if there are fewer
  int head_dim = 0;
  float scale = 0;  ///< of q . k
  /// Mean query of those rows, f32 [head_dim]; of the turn's rows in each block from the first row's on, [row blocks,
  /// head_dim]; mean key of every block, [key blocks, head_dim].
  std::span<const float> mean_last_query;
  std::span<const float> mean_queries;
  std::span<const float> mean_keys;
};

struct FlexSettings {
  double gamma = 0.9;  ///< share of the weight that vertical lines, slashes, or blocks must hold each for themselves
  double tau = 0.1;    ///< largest distance of the two estimates at which the means are trusted
  int64_t min_budget = 1024;  ///< keys' worth of vertical blocks, and of slash blocks, that are taken at least
};

struct FlexChoice {
  bool is_query_aware = false;  ///< the means were trusted
  /// For each block of the turn's rows, ascending key blocks: its own and the first are always among them.
  std::vector<std::vector<int32_t>> blocks;
};

/// Contexts that the published code computes densely: up to two blocks, or min_budget rounded up to whole ones.
int64_t FlexDenseKeys(int64_t min_budget);

/// The published definition (get_active_blocks): as many vertical blocks as single columns hold gamma, divided by 128;
/// slash blocks likewise; the heaviest by pooled weight, the lower index (the nearer slash) among equals.
/// Query-aware heads take min_budget's worth of both, and the heaviest (row block, key block) pairs of the means'
/// softmax while they hold no more than gamma of all row blocks' weight together. 0 log 0 counts as 0 in the distance
/// (the published code gets a NaN there, and with it vertical-slash).
FlexChoice ChooseFlexBlocks(const FlexProblem& problem, const FlexSettings& settings);

}  // namespace loopserve
