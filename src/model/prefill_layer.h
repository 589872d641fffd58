// One layer's prefill attention on its way through a method: the problem, the packed keys and values, and what each
// compute thread has of its own. The methods (prefill_methods.h) share this, and nothing else.
// Thread rule: a PrefillLayer is read-only while a method runs; a PrefillThread belongs to one thread at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/policy.h"
#include "loopserve/status.h"
#include "src/base/aligned_buffer.h"
#include "src/kernels/attention.h"
#include "src/kernels/attention_sparse.h"
#include "src/model/compute_threads.h"

namespace loopserve {

/// What a thread counts and measures, and the memory it reuses from block to block. Methods use the vectors as they
/// like.
struct PrefillThread {
  AlignedBuffer scratch;  ///< SparseScratchBytes, or PrefillScratchBytes where the policy is dense
  std::vector<float> mass;
  std::vector<uint64_t> ranks;
  std::vector<int32_t> tiles, blocks;
  std::vector<float> weights;                        ///< of the rows that decide
  std::vector<float> row_weights, row_out, partial;  ///< of the row that is measured
  std::vector<int32_t> row_keys;

  double selection_ms = 0;
  double measure_ms = 0;
  double paused_ms = 0;  ///< the first thread's: while others computed
  double computed_pairs = 0;
  std::vector<float> coverage, error, floor_error;  ///< one value for each measured row
  double floor_keys = 0, floor_causal_keys = 0;     ///< over the measured rows

  /// Before a layer: nothing is counted or measured yet.
  void Reset() {
    selection_ms = measure_ms = paused_ms = computed_pairs = floor_keys = floor_causal_keys = 0;
    for (std::vector<float>* measured : {&coverage, &error, &floor_error}) measured->clear();
  }
};

struct PrefillLayer {
  int index = 0;
  const PrefillSettings* settings = nullptr;
  AttentionMath math = AttentionMath::kF32;
  bool measure = false;
  bool reads_kept = false;  ///< views are what eviction left: heads differ in length, and positions are not indices
  AttentionProblem problem;
  std::vector<KvHeadView> views;              ///< [n_kv_heads], what problem.kv points to
  std::vector<std::byte*> packed;             ///< [n_kv_heads], from PackKv
  std::vector<const std::byte*> packed_read;  ///< the same, as the kernels take it
  const RunControl* control = nullptr;        ///< who may stop it, and compute in between
  ComputeThreads* threads = nullptr;
  std::span<PrefillThread> states;  ///< one for each thread

  int64_t n_keys() const { return views.front().n_keys; }
  int64_t n_blocks() const { return (problem.n_rows + kMaxBlockRows - 1) / kMaxBlockRows; }
  int kv_head(int head) const { return head / (problem.n_heads / problem.n_kv_heads); }
  const std::byte* packed_of(int head) const { return packed_read[static_cast<size_t>(kv_head(head))]; }
  RowBlock Block(int head, int64_t block) const {
    const int64_t first = block * kMaxBlockRows;
    return {head, first, static_cast<int>(std::min<int64_t>(kMaxBlockRows, problem.n_rows - first))};
  }

  /// body(item, state) for items 0 to n_items - 1, handed out in this order to whichever thread is free. A layer's
  /// attention can take seconds: every 50 ms all threads pause for control->yield. kCancelled.
  Status ForItems(int64_t n_items, const std::function<void(int64_t item, PrefillThread& state)>& body) const;

  /// The softmax weights of any number of rows of a head (ascending) into state.weights, f32 [rows, stride]; returns
  /// the stride, in floats.
  int64_t WeightsOfRows(int head, std::span<const int64_t> rows, PrefillThread& state) const;
};

/// Pairs that AttendTiles computes for `block` of a problem over ascending tiles that include all of the block's own.
double PairsOfTiles(const AttentionProblem& problem, const RowBlock& block, std::span<const int32_t> tiles);

/// The share of a row's weights (f32 [position + 1]) on ascending tiles.
float ShareOfTiles(std::span<const int32_t> tiles, const float* weights, int64_t position);

/// Causal pairs of `rows` rows, the first of which attends `first_keys` keys.
inline double CausalPairs(int64_t rows, int64_t first_keys) {
  return static_cast<double>(rows) * (static_cast<double>(first_keys) + static_cast<double>(rows - 1) / 2);
}

/// The pairs of a problem whose rows, the newest, attend all that each KV head holds up to them. A sliding window
/// counts as none.
inline double PairsHeld(const AttentionProblem& problem) {
  double pairs = 0;
  for (int head = 0; head < problem.n_kv_heads; ++head) {
    pairs += CausalPairs(problem.n_rows, problem.kv[head].n_keys - problem.n_rows + 1);
  }
  return pairs * (problem.n_heads / problem.n_kv_heads);
}

}  // namespace loopserve
