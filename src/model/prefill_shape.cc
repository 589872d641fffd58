#include "src/model/prefill_methods.h"
#include "src/selection/shape/attention_shape.h"

namespace loopserve {
namespace {

/// A block of rows that are all dense or none.
void AttendShapeBlock(const PrefillLayer& layer, const AttentionShape& shape, const RowBlock& block,
                      PrefillThread& state) {
  const int64_t first = layer.problem.first_position + block.first_row;
  const bool is_dense = first >= shape.first_dense;
  AttendSinksAndWindow(layer.problem, layer.math, layer.packed_of(block.head), block, is_dense ? 0 : shape.sinks,
                       is_dense ? layer.n_keys() : shape.local, state.scratch.data());
  for (int64_t position = first; position < first + block.n_rows; ++position) {
    state.computed_pairs += static_cast<double>(shape.Pairs(position));
  }
  if (!layer.measure || is_dense) return;  // rows that attend everything would say nothing of the others
  const auto held = [&](const float* weights, int64_t position) {
    float share = 0;
    for (int64_t key = 0; key < shape.SinkEnd(position); ++key) share += weights[key];
    for (int64_t key = shape.LocalBegin(position); key <= position; ++key) share += weights[key];
    return share;
  };
  MeasureHeldOut(layer, block, 0, held, state);
}

}  // namespace

Status PrefillShape(const PrefillLayer& layer) {
  const AttentionProblem& problem = layer.problem;
  const AttentionShape shape = MakeAttentionShape(*layer.settings, problem.n_rows, layer.n_keys());
  const int64_t n_windowed = shape.first_dense - shape.first_position;
  // The longest rows first: those that attend everything, then the others from the last to the first.
  std::vector<RowBlock> blocks;
  const auto add = [&](int64_t begin, int64_t end) {
    for (int64_t row = begin + (end - begin - 1) / kMaxBlockRows * kMaxBlockRows; row >= begin && begin < end;
         row -= kMaxBlockRows) {
      blocks.push_back({0, row, static_cast<int>(std::min<int64_t>(kMaxBlockRows, end - row))});
    }
  };
  add(n_windowed, problem.n_rows);
  add(0, n_windowed);
  return layer.ForItems(std::ssize(blocks) * problem.n_heads, [&](int64_t item, PrefillThread& state) {
    RowBlock block = blocks[static_cast<size_t>(item / problem.n_heads)];
    block.head = static_cast<int>(item % problem.n_heads);
    AttendShapeBlock(layer, shape, block, state);
  });
}

}  // namespace loopserve
