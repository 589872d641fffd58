#include <algorithm>
#include <array>

#include "src/base/clock.h"
#include "src/model/prefill_methods.h"
#include "src/selection/row_sample.h"
#include "src/selection/tiles/tile_choice.h"

namespace loopserve {
namespace {

/// Blocks of rows that one thread takes one after another, at most: each gives the next its hint.
constexpr int64_t kMaxRunBlocks = 8;
constexpr int64_t kShiftTiles = kMaxBlockRows / kChoiceTileKeys;
static_assert(kMaxBlockRows % kChoiceTileKeys == 0);

/// The sample of one block of rows, and state.tiles by it; with only_mass the sample alone, as the next block's hint.
void ChooseBlockTiles(const PrefillLayer& layer, const RowBlock& block, std::span<const int64_t> rows, bool only_mass,
                      PrefillThread& state) {
  const auto start = Clock::now();
  const int64_t first_position = layer.problem.first_position + block.first_row;
  std::swap(state.mass, state.mass_before);
  // Tiles after the last sampled row hold the block's own keys only: no weight is known there, and all are taken.
  state.mass.assign(static_cast<size_t>(ChoiceTiles(first_position + block.n_rows)), 0.0f);
  TileMass(layer.problem, layer.math, layer.packed_of(block.head), block.head, rows, state.mass.data(),
           state.scratch.data());
  if (!only_mass) {
    TileProblem choice;
    choice.mass = state.mass;
    choice.mass_before = state.mass_before;
    choice.shift_tiles = kShiftTiles;
    choice.first_own_tile = first_position / kChoiceTileKeys;
    ChooseTiles(choice, layer.settings->alpha, layer.settings->hint, &state.estimate, &state.tiles);
  }
  state.selection_ms += MillisecondsSince(start);
}

void RunTileBlock(const PrefillLayer& layer, int head, int64_t block_index, bool only_mass, PrefillThread& state) {
  const AttentionProblem& problem = layer.problem;
  const RowBlock block = layer.Block(head, block_index);
  const SampleKey key = {layer.settings->seed, layer.index, head, block_index};
  std::array<int64_t, kMaxSampledRows + 1> sampled;
  const int n_sampled = SampleStrata(key, block.first_row, block.n_rows, layer.settings->sample_rows, sampled.data());
  const std::span<const int64_t> rows(sampled.data(), static_cast<size_t>(n_sampled));
  ChooseBlockTiles(layer, block, rows, only_mass, state);
  if (only_mass) return;

  AttendTiles(problem, layer.math, layer.packed_of(head), block, state.tiles, state.scratch.data());
  state.computed_pairs += PairsOfTiles(problem, block, state.tiles);
  if (!layer.measure || n_sampled == block.n_rows) return;
  const int64_t row = HeldOutRow(key, block.first_row, block.n_rows, rows);
  const int64_t position = problem.first_position + row;
  MeasureRow(
      layer, head, row, [&](const float* weights) { return ShareOfTiles(state.tiles, weights, position); }, state);
}

}  // namespace

Status PrefillTiles(const PrefillLayer& layer) {
  const int64_t n_blocks = layer.n_blocks();
  const int64_t n_heads = layer.problem.n_heads;
  // Long runs waste little on the block before the first; short ones share out evenly.
  const int64_t run = std::clamp<int64_t>(n_blocks * n_heads / (8 * layer.threads->n_threads()), 1, kMaxRunBlocks);
  const int64_t n_runs = (n_blocks + run - 1) / run;
  return layer.ForItems(n_runs * n_heads, [&](int64_t item, PrefillThread& state) {
    const int64_t first = (n_runs - 1 - item / n_heads) * run;  // the longest rows first
    const int head = static_cast<int>(item % n_heads);
    state.mass.clear();
    if (first > 0 && layer.settings->hint > 0) RunTileBlock(layer, head, first - 1, /*only_mass=*/true, state);
    for (int64_t block = first; block < std::min(first + run, n_blocks); ++block) {
      RunTileBlock(layer, head, block, /*only_mass=*/false, state);
    }
  });
}

}  // namespace loopserve
