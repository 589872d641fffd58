// Prefill attention of one layer for all new rows of a pass: dense, or thinned out as the policy says. Kernels compute,
// selection/ decides, the methods (prefill_methods.h) go between them on the compute threads, and this gives a layer to
// the method that the policy wants.
// Thread rule: one owner.
//
// Workspace: one layer's packed keys and values; when sparse also a second buffer of the queries' size (rows that are
// sampled later still need their queries), and for kLines the weights of one head's sampled rows on every thread.
#pragma once

#include <cstdint>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/policy.h"
#include "loopserve/status.h"
#include "src/base/aligned_buffer.h"
#include "src/kernels/attention.h"
#include "src/model/compute_threads.h"
#include "src/model/dialogue.h"
#include "src/model/model.h"

namespace loopserve {

struct PrefillLayer;
struct PrefillThread;

/// What the attention of a pass cost and lost, over all layers and query heads.
struct PrefillFigures {
  double attention_ms = 0;  ///< selection not counted in
  double selection_ms = 0;
  double computed_pairs = 0;
  double causal_pairs = 0;
  /// Of rows that were not sampled, one value each; empty unless they were asked for. Measuring takes time, which the
  /// figures above do not hold but the caller's clock does.
  std::vector<float> heldout_coverage;
  std::vector<float> output_error;  ///< |sparse - dense| / |dense| of the row's output
  /// Of the same rows: the fewest keys that hold the policy's alpha of the row's weight, all keys that it could attend,
  /// and the output error where it attends the fewest alone.
  double floor_keys = 0;
  double floor_causal_keys = 0;
  std::vector<float> floor_error;

  void Add(const PrefillFigures& other);
};

class PrefillAttention {
 public:
  PrefillAttention(const Model& model, AttentionMath math, ComputeThreads& threads);
  ~PrefillAttention();

  /// Memory for passes of n_rows rows over n_keys keys. kResourceExhausted.
  Status Reserve(int64_t n_rows, int64_t n_keys, const Policy& policy);

  /// q: f32 [n_rows, q_width], queries of the cache's newest, stored but not committed rows; on return the attention's
  /// output of rows [first_row, n_rows) stands in their place. What eviction left is attended, and extended by these
  /// rows. Yields, measures and may be cancelled as control says.
  Status Run(Dialogue& dialogue, int layer, int64_t n_rows, int64_t first_row, const RunControl& control,
             AlignedBuffer* q, PrefillFigures* figures);

  /// Gives back what is larger than `bytes`.
  void FreeAbove(size_t bytes);

 private:
  /// The problem of all n_rows rows. Extends what is kept.
  Status Describe(Dialogue& dialogue, int index, int64_t n_rows, PrefillLayer* layer);
  Status PackAll(const PrefillLayer& layer);

  const Model& model_;
  AttentionMath math_;
  ComputeThreads& threads_;
  AlignedBuffer packed_kv_;  ///< [n_kv_heads][PackedKvBytes]
  AlignedBuffer out_;        ///< f32 [rows, q_width]
  std::vector<PrefillThread> states_;
};

}  // namespace loopserve
