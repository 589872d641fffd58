// Compresses a dialogue under an eviction policy: weighs what each KV head holds, asks src/selection/eviction what is
// kept, and copies it side by side (kept_keys.h). The methods share this; they differ in what they weigh by.
// Thread rule: one owner.
#pragma once

#include <cstdint>
#include <vector>

#include "src/model/compute_threads.h"
#include "src/model/dialogue.h"
#include "src/model/model.h"

namespace loopserve {

class Evictor {
 public:
  Evictor(const Model& model, ComputeThreads& threads);

  /// The tokens of a prompt are committed, the last n_new of them new. kResourceExhausted.
  Status EndPrompt(Dialogue& dialogue, int64_t n_new, double* selection_ms);
  /// Before a step of an answer, where answers decide: compresses when enough tokens are there. kResourceExhausted.
  Status BeginStep(Dialogue& dialogue, double* selection_ms);
  /// The answer is complete, however short: the same by the tokens there are.
  Status EndAnswer(Dialogue& dialogue, double* selection_ms);

 private:
  struct Head {
    int layer;
    int kv_head;
  };
  /// Heads that are compressed, layer by layer.
  std::vector<Head> Heads() const;
  /// Keeps the policy's choice by the newest `window` rows.
  Status Compress(Dialogue& dialogue, int64_t window);
  /// What the head holds of the dialogue's tokens.
  static KvHeadView ViewOf(Dialogue& dialogue, const Head& head);
  /// Weights of the newest n_rows rows on what the head holds.
  std::vector<float> NewestWeights(Dialogue& dialogue, const Head& head, int64_t n_rows) const;
  Status AddNewestColumnSums(Dialogue& dialogue, int64_t n_rows);

  const Model& model_;
  ComputeThreads& threads_;
};

}  // namespace loopserve
