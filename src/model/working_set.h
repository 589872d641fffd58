// Phase 2 of LoopServe (arXiv 2507.13681, Algorithm 2): the keys and values that decode steps read, chosen per layer
// and KV head by the attention of the newest queries, copied side by side, chosen again as the answer goes on.
//
// Life of an answer: Begin (all layers, by the last rows of the prompt) -> for each step: Renew (layers whose turn it
// is), then as the layer's row is stored Append, then Views -> End. Thread rule: one owner; Append and View by one
// thread, in between the others use the compute threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "loopserve/policy.h"
#include "src/kernels/attention.h"
#include "src/model/compute_threads.h"
#include "src/model/dialogue.h"
#include "src/model/model.h"

namespace loopserve {

class WorkingSetKeeper {
 public:
  WorkingSetKeeper(const Model& model, ComputeThreads& threads);
  ~WorkingSetKeeper();

  /// Chooses for all layers. kResourceExhausted: steps read everything.
  Status Begin(Dialogue& dialogue);
  /// Before a step: chooses anew for the layers whose turn it is.
  Status Renew(Dialogue& dialogue, double* selection_ms);
  /// What the newest choice read, in keys (with values) of a KV head, over layers and heads: all keys, no values.
  static double KeysReadToChoose(const Dialogue& dialogue);
  /// Whether steps of this layer read working sets.
  bool IsSparse(const Dialogue& dialogue, int layer) const;
  /// Adds the newest stored row, at `position`, of all heads of a layer.
  static void Append(Dialogue& dialogue, int layer, int64_t position);
  /// What steps read of one head. Valid until the next Append or choice.
  static KvHeadView View(const Dialogue& dialogue, int layer, int kv_head);
  /// Marks [n_tokens] of the keys that steps read of a head.
  static std::vector<uint8_t> Seen(const Dialogue& dialogue, int layer, int kv_head);

 private:
  struct ThreadState;
  struct Task {
    int layer;
    int kv_head;
  };
  Status BeginSparse(Dialogue& dialogue);
  /// body(i, state) for all i below n, shared by the threads.
  Status ForTasks(size_t n, const std::function<void(size_t i, ThreadState& state)>& body);
  /// state.weight of the newest queries.
  void SumNewestWeights(const Dialogue& dialogue, const Task& task, ThreadState& state);
  /// Chooses by state.weight and copies what is new.
  void FillHead(Dialogue& dialogue, const Task& task, ThreadState& state);
  /// weight[t] = sum over the queries of positions [first, last] and the heads of the group of the softmax weight of
  /// key t.
  void SumWeights(const Dialogue& dialogue, const Task& task, int64_t first_position, int64_t last_position,
                  ThreadState& state);

  const Model& model_;
  ComputeThreads& threads_;
  std::vector<ThreadState> states_;
};

}  // namespace loopserve
