#include "src/model/prefill_layer.h"

namespace loopserve {

Status PrefillLayer::ForItems(int64_t n_items,
                              const std::function<void(int64_t item, PrefillThread& state)>& body) const {
  return threads->ForItems(n_items, [&](int64_t item, int thread) { body(item, states[static_cast<size_t>(thread)]); });
}

int64_t PrefillLayer::WeightsOfRows(int head, std::span<const int64_t> rows, PrefillThread& state) const {
  const int64_t stride = PaddedKeys(n_keys());
  state.weights.resize(rows.size() * static_cast<size_t>(stride));
  RowWeights(problem, math, packed_of(head), head, rows, state.weights.data(), stride, state.scratch.data());
  return stride;
}

double PairsOfTiles(const AttentionProblem& problem, const RowBlock& block, std::span<const int32_t> tiles) {
  const int64_t first_position = problem.first_position + block.first_row;
  const int64_t own_key = first_position / kChoiceTileKeys * kChoiceTileKeys;
  const auto chosen_before = std::ranges::lower_bound(tiles, own_key / kChoiceTileKeys) - tiles.begin();
  return static_cast<double>(chosen_before) * kChoiceTileKeys * block.n_rows +
         CausalPairs(block.n_rows, first_position + 1 - own_key);
}

float ShareOfTiles(std::span<const int32_t> tiles, const float* weights, int64_t position) {
  float share = 0;
  for (const int32_t tile : tiles) {
    const int64_t end = std::min<int64_t>(position + 1, (int64_t{tile} + 1) * kChoiceTileKeys);
    for (int64_t key = int64_t{tile} * kChoiceTileKeys; key < end; ++key) share += weights[key];
  }
  return share;
}

}  // namespace loopserve
