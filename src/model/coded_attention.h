// Decode attention by coded keys: for every token each layer scores all keys by their codes, reads the heaviest
// exactly, and lets the others count with their estimated weight and the mean value of their neighbours. So every key
// takes part in every token, for a fraction of the bytes (docs/algorithm.md, "Decode").
//
// A layer of a step: Scan, AttendAlways -> barrier -> Weigh -> barrier -> Pick -> barrier -> Attend -> barrier ->
// Merge, each called by every thread. Up to Pick the work is split into pieces (a run of a KV head), each done by one
// thread throughout: its weights stay in that thread's cache. How many keys a piece has to read is as the query wants
// it; Attend splits them evenly. Which thread does what depends on n_threads and the numbers alone: the same step gives
// the same sums. Thread rule: one owner; nothing is allocated between BeginStep and the next.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/kernels/attention.h"
#include "src/model/dialogue.h"
#include "src/model/hyper_params.h"
#include "src/model/token_attention.h"
#include "src/selection/decode/heaviest.h"

namespace loopserve {

class CodedAttention final : public TokenAttention {
 public:
  CodedAttention(const HyperParams& params, int n_threads);
  ~CodedAttention() override;

  Status BeginStep(Dialogue& dialogue, int64_t position, bool mark_seen) override;
  bool Chooses(int) const override { return true; }

  /// Scores of all coded keys; q: f32 [n_heads][head_dim]. The first thread calls it when the step's row is stored, the
  /// others need not wait for that.
  void Scan(int layer, const float* q, int thread) override;
  /// Exact attention of this thread's share of the keys that are always read, sinks and the newest: their softmax is
  /// known from the start.
  void AttendAlways(int thread) override;
  /// From scores to what each key weighs to its KV head (or query head), and how many weigh how much.
  void Weigh(int thread) override;
  /// Chooses, and counts what is not chosen by estimate; `kv`: [n_kv_heads] views of the layer with the step's row.
  void Pick(const KvHeadView* kv, int thread) override;
  /// Exact attention of this thread's share of the chosen keys.
  void Attend(const KvHeadView* kv, int thread) override;
  /// This thread's share of heads, into out: f32 [n_heads][head_dim].
  void Merge(float* out, int thread) override;

  /// What the last layer read, in keys of a KV head: exact keys, and codes by their bytes. All KV heads together.
  double KeysRead() const override;
  /// Marks of the keys that `head` of `layer` read exactly in the last step (with mark_seen): [position + 1].
  const uint8_t* Seen(int layer, int head) const override;

 private:
  struct ThreadState;
  struct Piece {
    int kv_head;
    int run;
  };
  int64_t n_pieces() const { return int64_t{n_runs_} * params_.n_kv_heads; }
  Piece PieceAt(int64_t i) const {
    return {static_cast<int>(i % params_.n_kv_heads), static_cast<int>(i / params_.n_kv_heads)};
  }
  const CodedKeys::Run& RunOf(int layer, const Piece& piece) const {
    return dialogue_->coded_keys.run(layer, piece.kv_head, piece.run);
  }
  /// Groups of a run that are scanned: the newest keys are read exactly.
  int ScannedGroups(int run) const;
  uint16_t* WeightsOf(int head, int run) {
    return weights_.data() + int64_t{head} * n_scanned_ + run * CodedKeys::kRunKeys;
  }
  float* GroupSums(int head, int run) {
    return group_sums_.data() + (int64_t{head} * n_scanned_ + run * CodedKeys::kRunKeys) / kCodeGroupKeys;
  }
  float* Partials(int part) {
    return reinterpret_cast<float*>(partials_.data()) + static_cast<size_t>(part) * part_floats_;
  }
  void ScanPiece(int layer, const float* q, const Piece& piece, ThreadState& state);
  void FindShares(ThreadState& state) const;
  WeightCut FindCut(int unit) const;
  /// Picks the keys of a piece that a unit reads, and fetches them ahead; the others count by estimate.
  void PickPiece(const KvHeadView& kv, const Piece& piece, int unit, const WeightCut& cut, int thread);
  void MarkAlways();
  /// What a key must weigh to be considered.
  float& LeastWeight(int unit) {
    return dialogue_->least_weights[static_cast<size_t>(int64_t{layer_} * n_units_ + unit)];
  }
  size_t RunHead(int run, int head) const {
    return static_cast<size_t>(run) * static_cast<size_t>(params_.n_heads) + static_cast<size_t>(head);
  }
  size_t SeenBegin(int layer, int unit) const {
    return static_cast<size_t>(int64_t{layer} * n_units_ + unit) * static_cast<size_t>(position_ + 1);
  }

  const HyperParams& params_;
  const int n_threads_;
  const int group_;  // query heads of a KV head
  int n_units_ = 0;  // choices of a layer: one for each KV head, or for each query head
  int unit_heads_ = 0;
  // The step.
  Dialogue* dialogue_ = nullptr;
  int64_t position_ = 0;
  int64_t n_scanned_ = 0;  // keys that are looked through; those behind them, and the sinks, are always read
  int n_runs_ = 0;
  int64_t wanted_ = 0;  // keys of a choice besides
  size_t part_floats_ = 0;
  bool mark_seen_ = false;
  std::vector<int32_t> always_;
  // The layer.
  int layer_ = 0;
  const float* q_ = nullptr;
  std::atomic<bool> row_is_stored_ = false;
  std::vector<uint16_t> weights_;      // [n_heads][n_scanned], bf16: by codes, relative to the run's heaviest
  std::vector<float> group_sums_;      // [n_heads][n_scanned / kCodeGroupKeys]: what is not read exactly, after Attend
  std::vector<int32_t> heavy_;         // [n_units][n_scanned]: in each run, numbers in it that may be chosen,
  std::vector<float> totals_;          // their weights over the heads of the unit,
  std::vector<int32_t> n_heavy_;       // and how many, [n_runs][n_units]
  std::vector<float> largest_, sums_;  // [n_runs + n_threads][n_heads]: of runs, then of what is always read
  AlignedBuffer partials_;  // [3 n_threads][n_heads]: exact and estimated of each thread, then what is always read
  std::vector<ThreadState> states_;
  std::vector<uint8_t> seen_;  // [n_layers][n_units][position + 1]
};

}  // namespace loopserve
