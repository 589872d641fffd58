#include "src/model/prefill_blocks.h"

#include <algorithm>

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/model/prefill_methods.h"

namespace loopserve {
namespace {

/// The tiles of ascending key blocks that rows up to `last_position` see.
void TilesOfBlocks(std::span<const int32_t> blocks, int64_t block_tokens, int64_t last_position,
                   std::vector<int32_t>* tiles) {
  const int64_t tiles_per_block = block_tokens / kChoiceTileKeys;
  const int64_t end = ChoiceTiles(last_position + 1);
  tiles->clear();
  for (const int32_t block : blocks) {
    for (int64_t t = block * tiles_per_block; t < std::min(end, (block + 1) * tiles_per_block); ++t) {
      tiles->push_back(static_cast<int32_t>(t));
    }
  }
}

/// The rows of one block, in parts that end at multiples of kBlockPartRows.
void AttendBlock(const PrefillLayer& layer, const BlockMethod& method, int head, int64_t block, PrefillThread& state) {
  const AttentionProblem& problem = layer.problem;
  const auto start = Clock::now();
  method.choose(head, block, state);
  state.selection_ms += MillisecondsSince(start);
  int64_t position = std::max(problem.first_position, block * method.block_tokens);
  const int64_t end = std::min(layer.n_keys(), (block + 1) * method.block_tokens);
  while (position < end) {
    const int64_t part_end = std::min(end, (position / kBlockPartRows + 1) * kBlockPartRows);
    const RowBlock part = {head, position - problem.first_position, static_cast<int>(part_end - position)};
    TilesOfBlocks(state.blocks, method.block_tokens, part_end - 1, &state.tiles);
    AttendTiles(problem, layer.math, layer.packed_of(head), part, state.tiles, state.scratch.data());
    state.computed_pairs += PairsOfTiles(problem, part, state.tiles);
    if (layer.measure) {
      const auto held = [&](const float* weights, int64_t at) { return ShareOfTiles(state.tiles, weights, at); };
      MeasureHeldOut(layer, part, method.n_deciding_rows, held, state);
    }
    position = part_end;
  }
}

}  // namespace

Status AttendBlocks(const PrefillLayer& layer, const BlockMethod& method) {
  LS_CHECK(method.block_tokens % kBlockPartRows == 0);
  const int64_t first_block = layer.problem.first_position / method.block_tokens;
  const int64_t last_block = (layer.n_keys() - 1) / method.block_tokens;
  const int64_t n_heads = layer.problem.n_heads;
  return layer.ForItems((last_block - first_block + 1) * n_heads, [&](int64_t item, PrefillThread& state) {
    AttendBlock(layer, method, static_cast<int>(item % n_heads), last_block - item / n_heads, state);
  });
}

}  // namespace loopserve
