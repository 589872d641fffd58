#include "src/model/prefill_layer.h"

#include <atomic>

#include "src/base/clock.h"

namespace loopserve {
namespace {

/// Long beside what it costs that threads wait for the last item (a few ms where contexts are longest), short for
/// somebody who reads an answer.
constexpr auto kLongestStretch = std::chrono::milliseconds(50);

}  // namespace

Status PrefillLayer::ForItems(int64_t n_items,
                              const std::function<void(int64_t item, PrefillThread& state)>& body) const {
  const std::atomic<bool>* const cancel = control->cancel;
  const auto is_cancelled = [cancel] { return cancel != nullptr && cancel->load(std::memory_order_relaxed); };
  std::atomic<int64_t> next{0};
  for (;;) {
    const auto pause_at = Clock::now() + kLongestStretch;
    LS_RETURN_IF_ERROR(threads->Parallel([&](int thread, int) {
      while (!is_cancelled() && (!control->yield || Clock::now() < pause_at)) {
        const int64_t item = next.fetch_add(1);
        if (item >= n_items) return;
        body(item, states[static_cast<size_t>(thread)]);
      }
    }));
    if (is_cancelled()) return Status(StatusCode::kCancelled, "cancelled while the prompt was read");
    if (next.load() >= n_items) return Status::Ok();
    const auto pause = Clock::now();
    control->yield();
    states.front().paused_ms += MillisecondsSince(pause);
  }
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
