#include <algorithm>
#include <array>
#include <memory>

#include "src/base/clock.h"
#include "src/kernels/tile_estimate.h"
#include "src/model/prefill_methods.h"
#include "src/selection/row_sample.h"
#include "src/selection/tiles/tile_choice.h"

namespace loopserve {
namespace {

/// Of every KV head.
using Summaries = std::vector<std::unique_ptr<TileSummaries>>;

/// Tiles that one thread summarizes at a time.
constexpr int64_t kRangeTiles = kPackGroupKeys;

/// body(summaries, first tile, last tile) for ranges of all KV heads, counted as selection.
template <class Body>
Status ForRanges(const PrefillLayer& layer, Summaries& summaries, const Body& body) {
  const int64_t n_tiles = ChoiceTiles(layer.n_keys());
  const int64_t n_ranges = (n_tiles + kRangeTiles - 1) / kRangeTiles;
  return layer.ForItems(n_ranges * std::ssize(summaries), [&](int64_t item, PrefillThread& state) {
    const auto start = Clock::now();
    const int64_t first = item % n_ranges * kRangeTiles;
    body(*summaries[static_cast<size_t>(item / n_ranges)], first, std::min(n_tiles, first + kRangeTiles));
    state.selection_ms += MillisecondsSince(start);
  });
}

/// state.tiles of one block of rows, by the estimate of some of them.
void ChooseBlockTiles(const PrefillLayer& layer, const TileSummaries& summaries, const RowBlock& block,
                      std::span<const int64_t> rows, PrefillThread& state) {
  const auto start = Clock::now();
  const int64_t first_position = layer.problem.first_position + block.first_row;
  // Tiles after the last sampled row hold the block's own keys only: no weight is known there, and all are taken.
  state.mass.assign(static_cast<size_t>(ChoiceTiles(first_position + block.n_rows)), 0.0f);
  TileEstimate(layer.problem, layer.math, summaries, block.head, rows, state.mass.data(), state.scratch.data());
  ChooseTiles({state.mass, first_position / kChoiceTileKeys}, layer.settings->alpha, &state.ranks, &state.tiles);
  state.selection_ms += MillisecondsSince(start);
}

void RunTileBlock(const PrefillLayer& layer, const TileSummaries& summaries, int head, int64_t block_index,
                  PrefillThread& state) {
  const AttentionProblem& problem = layer.problem;
  const RowBlock block = layer.Block(head, block_index);
  const SampleKey key = {layer.settings->seed, layer.index, head, block_index};
  std::array<int64_t, kMaxBlockRows> sampled;
  const int n_sampled = SampleStrata(key, block.first_row, block.n_rows, layer.settings->sample_rows, sampled.data());
  const std::span<const int64_t> rows(sampled.data(), static_cast<size_t>(n_sampled));
  ChooseBlockTiles(layer, summaries, block, rows, state);
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
  Summaries summaries(layer.views.size());
  LS_RETURN_IF_ERROR(layer.ForItems(std::ssize(summaries), [&](int64_t head, PrefillThread&) {
    const auto i = static_cast<size_t>(head);
    summaries[i] = std::make_unique<TileSummaries>(layer.views[i], layer.math);
  }));
  LS_RETURN_IF_ERROR(
      ForRanges(layer, summaries, [](TileSummaries& s, int64_t first, int64_t last) { s.Summarize(first, last); }));
  LS_RETURN_IF_ERROR(
      ForRanges(layer, summaries, [](TileSummaries& s, int64_t first, int64_t last) { s.Pack(first, last); }));
  const int64_t n_blocks = layer.n_blocks();
  const int64_t n_heads = layer.problem.n_heads;
  return layer.ForItems(n_blocks * n_heads, [&](int64_t item, PrefillThread& state) {
    const int head = static_cast<int>(item % n_heads);
    const int64_t block = n_blocks - 1 - item / n_heads;  // the longest rows first
    RunTileBlock(layer, *summaries[static_cast<size_t>(layer.kv_head(head))], head, block, state);
  });
}

}  // namespace loopserve
