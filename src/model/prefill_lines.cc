#include <algorithm>
#include <memory>

#include "src/base/clock.h"
#include "src/model/prefill_methods.h"
#include "src/selection/lines/line_choice.h"
#include "src/selection/row_sample.h"

namespace loopserve {
namespace {

/// The rows of the whole turn that decide for a head, ascending.
std::vector<int64_t> SampleRows(const PrefillLayer& layer, int head) {
  const int64_t n_rows = layer.problem.n_rows;
  std::vector<int64_t> rows(static_cast<size_t>(std::min<int64_t>(layer.settings->sample_rows, n_rows)));
  SampleStrata({layer.settings->seed, layer.index, head, 0}, 0, n_rows, static_cast<int>(rows.size()), rows.data());
  return rows;
}

/// LoopServe's Algorithm 1.
LineChoice ChooseBySample(const PrefillLayer& layer, int head, PrefillThread& state) {
  const AttentionProblem& problem = layer.problem;
  std::vector<int64_t> rows = SampleRows(layer, head);
  const int64_t stride = layer.WeightsOfRows(head, rows, state);
  for (int64_t& row : rows) row += problem.first_position;
  return ChooseLines({problem.first_position, layer.n_keys(), {rows, state.weights.data(), stride}},
                     layer.settings->alpha);
}

std::unique_ptr<PackedLines> ChooseHeadLines(const PrefillLayer& layer, int head, PrefillThread& state) {
  const auto start = Clock::now();
  const KvHeadView& kv = layer.problem.kv[layer.kv_head(head)];
  const LineChoice choice = ChooseBySample(layer, head, state);
  state.computed_pairs += static_cast<double>(choice.cells);
  auto packed = std::make_unique<PackedLines>(kv, choice.columns, choice.slashes, layer.math);
  state.selection_ms += MillisecondsSince(start);
  return packed;
}

void RunLineBlock(const PrefillLayer& layer, int head, int64_t block_index, const PackedLines& lines,
                  PrefillThread& state) {
  const AttentionProblem& problem = layer.problem;
  const RowBlock block = layer.Block(head, block_index);
  AttendLines(problem, layer.math, layer.packed_of(head), block, lines, state.scratch.data());
  if (!layer.measure) return;
  const std::vector<int64_t> sampled = SampleRows(layer, head);
  const auto first = std::ranges::lower_bound(sampled, block.first_row);
  const auto last = std::lower_bound(first, sampled.end(), block.first_row + block.n_rows);
  if (last - first == block.n_rows) return;
  const int64_t row =
      HeldOutRow({layer.settings->seed, layer.index, head, block_index}, block.first_row, block.n_rows, {first, last});
  const int64_t position = problem.first_position + row;
  MeasureRow(
      layer, head, row, [&](const float* weights) { return lines.Coverage(weights, position); }, state);
}

}  // namespace

Status PrefillLines(const PrefillLayer& layer) {
  const int64_t n_heads = layer.problem.n_heads;
  std::vector<std::unique_ptr<PackedLines>> lines(static_cast<size_t>(n_heads));
  LS_RETURN_IF_ERROR(layer.ForItems(n_heads, [&](int64_t head, PrefillThread& state) {
    lines[static_cast<size_t>(head)] = ChooseHeadLines(layer, static_cast<int>(head), state);
  }));
  const int64_t n_blocks = layer.n_blocks();
  return layer.ForItems(n_blocks * n_heads, [&](int64_t item, PrefillThread& state) {
    const int64_t head = item % n_heads;
    RunLineBlock(layer, static_cast<int>(head), n_blocks - 1 - item / n_heads, *lines[static_cast<size_t>(head)],
                 state);
  });
}

}  // namespace loopserve
