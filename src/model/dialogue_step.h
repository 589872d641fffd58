// What one dialogue does in a step of the decode graph: the attention of its new rows, layer by layer, under its own
// policy. A step may have several dialogues; their rows share the matrix products and nothing else, so that each
// computes what it would compute alone, bit for bit.
//
// A layer: Store -> barrier -> Weigh -> barrier -> Pick -> barrier -> Attend -> barrier -> Merge, each called by every
// thread. Thread rule: one owner; nothing is allocated between Begin and the next.
#pragma once

#include <cstdint>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/kernels/attention.h"
#include "src/model/decode_sparsity.h"
#include "src/model/dialogue.h"
#include "src/model/forward.h"
#include "src/model/model.h"

namespace loopserve {

class DialogueStep {
 public:
  DialogueStep(const Model& model, int n_threads);

  /// Prepares n_rows rows behind those of the cache, the rows from first_row on of the graph. kResourceExhausted.
  Status Begin(Dialogue& dialogue, int64_t n_rows, int64_t first_row, DecodeSparsity& sparsity);

  int64_t first_position() const { return first_position_; }
  int64_t first_row() const { return first_row_; }
  int64_t n_rows() const { return n_rows_; }

  /// Appends the new rows to the cache and prepares the problem that the next calls solve; where tokens find their
  /// keys, the other threads look through them meanwhile. q: f32 [n_rows][q_width], each thread's own copy, which must
  /// stay until Merge; rows: f32 [n_rows][2 kv_width], keys and values (read by the first thread).
  void Store(int layer, const float* q, const float* rows, int thread);
  void Weigh(int layer, int thread);
  void Pick(int layer, int thread);
  void Attend(int layer, const float* q, int thread);
  /// out: f32 [n_rows][q_width]
  void Merge(int layer, float* out, int thread);

  /// What choosing keys took: before the first layer, and within the layers' attention.
  double preparing_ms() const { return preparing_ms_; }
  double selection_ms() const { return selection_ms_; }
  /// Adds what was read and computed, no times.
  void AddFigures(ForwardStats* stats) const;
  /// What computed the layers of the last step that chose by token.
  const TokenAttention* by_token() const { return keys_.by_token(); }

 private:
  using Reads = DecodeSparsity::Reads;
  Reads ReadsOf(int layer) const { return reads_[static_cast<size_t>(layer)]; }
  /// Whether each KV head has keys of its own, side by side, of which the rows attend all.
  bool HasOwnKeys(int layer) const { return ReadsOf(layer) == Reads::kWorkingSet || ReadsOf(layer) == Reads::kKept; }
  Status ReservePartials();
  void FindKeys(int layer);
  std::byte* HeadPartials(int kv_head) const {
    return partials_.data() + head_partial_bytes_ * static_cast<size_t>(kv_head);
  }

  const Model& model_;
  const int n_threads_;
  DecodeSparsity::StepKeys keys_;
  // The step.
  Dialogue* dialogue_ = nullptr;
  int64_t first_position_ = 0;
  int64_t first_row_ = 0;
  int64_t n_rows_ = 0;
  std::vector<Reads> reads_;  ///< [n_layers]
  AlignedBuffer partials_;
  size_t head_partial_bytes_ = 0;  ///< of one KV head, when each has its own keys
  double preparing_ms_ = 0, selection_ms_ = 0;
  double keys_read_ = 0, keys_held_ = 0;
  int64_t n_choices_ = 0;  ///< layers that chose for this step
  double computed_pairs_ = 0, causal_pairs_ = 0;
  // The layer.
  std::vector<KvHeadView> views_;
  AttentionProblem problem_;
};

}  // namespace loopserve
