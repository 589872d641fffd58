#include <memory>
#include <numeric>

#include "src/base/clock.h"
#include "src/model/prefill_blocks.h"
#include "src/model/prefill_methods.h"
#include "src/selection/minference/vertical_slash.h"

namespace loopserve {
namespace {

/// What one head computes.
struct HeadLines {
  std::unique_ptr<PackedLines> columns;
  std::vector<int32_t> slashes;
};

VerticalSlash ChooseByLastRows(const PrefillLayer& layer, int head, PrefillThread& state) {
  const AttentionProblem& problem = layer.problem;
  std::vector<int64_t> rows(static_cast<size_t>(std::min(kVerticalSlashRows, problem.n_rows)));
  std::iota(rows.begin(), rows.end(), problem.n_rows - static_cast<int64_t>(rows.size()));
  const int64_t stride = layer.WeightsOfRows(head, rows, state);
  for (int64_t& row : rows) row += problem.first_position;
  return ChooseVerticalSlash({problem.first_position, layer.n_keys(), {rows, state.weights.data(), stride}},
                             layer.settings->columns, layer.settings->slashes);
}

HeadLines ChooseHeadLines(const PrefillLayer& layer, int head, PrefillThread& state) {
  const auto start = Clock::now();
  VerticalSlash choice = ChooseByLastRows(layer, head, state);
  HeadLines lines;
  lines.columns = std::make_unique<PackedLines>(layer.problem.kv[layer.kv_head(head)], choice.columns,
                                                std::span<const int32_t>(), layer.math);
  lines.slashes = std::move(choice.slashes);
  state.selection_ms += MillisecondsSince(start);
  return lines;
}

/// The share of a row's weights on columns and tiles; shared keys once.
float ShareOfPart(const PackedLines& columns, std::span<const int32_t> tiles, const float* weights, int64_t position) {
  float share = columns.Coverage(weights, position);
  for (const int32_t tile : tiles) {
    const int64_t end = std::min<int64_t>(position + 1, (int64_t{tile} + 1) * kChoiceTileKeys);
    for (int64_t key = int64_t{tile} * kChoiceTileKeys; key < end; ++key) {
      if (!columns.is_column(key)) share += weights[key];
    }
  }
  return share;
}

void AttendPart(const PrefillLayer& layer, const RowBlock& part, const HeadLines& lines, PrefillThread& state) {
  const auto start = Clock::now();
  const int64_t first = layer.problem.first_position + part.first_row;
  const int64_t last = first + part.n_rows - 1;
  TilesOfSlashes(lines.slashes, first, last, kChoiceTileKeys, &state.tiles);
  state.selection_ms += MillisecondsSince(start);
  AttendColumnsAndTiles(layer.problem, layer.math, layer.packed_of(part.head), part, *lines.columns, state.tiles,
                        state.scratch.data());
  // The nearest slashes take all of the part's own keys: columns outside the tiles lie before every row.
  state.computed_pairs +=
      PairsOfTiles(layer.problem, part, state.tiles) +
      static_cast<double>(part.n_rows * ColumnsOutside(lines.columns->columns(), state.tiles, kChoiceTileKeys, last));
  if (!layer.measure) return;
  const auto held = [&](const float* weights, int64_t position) {
    return ShareOfPart(*lines.columns, state.tiles, weights, position);
  };
  MeasureHeldOut(layer, part, kVerticalSlashRows, held, state);
}

}  // namespace

Status PrefillMInference(const PrefillLayer& layer) {
  const int64_t n_heads = layer.problem.n_heads;
  std::vector<HeadLines> lines(static_cast<size_t>(n_heads));
  LS_RETURN_IF_ERROR(layer.ForItems(n_heads, [&](int64_t head, PrefillThread& state) {
    lines[static_cast<size_t>(head)] = ChooseHeadLines(layer, static_cast<int>(head), state);
  }));
  const int64_t n_parts = (layer.problem.n_rows + kBlockPartRows - 1) / kBlockPartRows;
  return layer.ForItems(n_parts * n_heads, [&](int64_t item, PrefillThread& state) {
    const int64_t first = (n_parts - 1 - item / n_heads) * kBlockPartRows;  // the longest rows first
    const RowBlock part = {static_cast<int>(item % n_heads), first,
                           static_cast<int>(std::min(kBlockPartRows, layer.problem.n_rows - first))};
    AttendPart(layer, part, lines[static_cast<size_t>(part.head)], state);
  });
}

}  // namespace loopserve
