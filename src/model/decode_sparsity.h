// Which keys the steps of an answer read: by working sets (paper's Algorithm 2), found anew for every token (by coded
// keys or by pages), or what an eviction policy left, as the policy says.
// Thread rule: one owner.
#pragma once

#include <vector>

#include "src/model/coded_attention.h"
#include "src/model/compute_threads.h"
#include "src/model/dialogue.h"
#include "src/model/model.h"
#include "src/model/paged_attention.h"
#include "src/model/working_set.h"

namespace loopserve {

class DecodeSparsity {
 public:
  /// What the attention of a layer reads in a step.
  enum class Reads { kEverything, kWorkingSet, kByToken, kKept };

  /// What finds the keys of one dialogue's step, where each token has its own.
  class StepKeys {
   public:
    StepKeys(const HyperParams& params, int n_threads) : coded_(params, n_threads), paged_(params, n_threads) {}
    /// What a step computes the layers with that read kByToken, since its BeginStep.
    TokenAttention* by_token() { return by_token_; }
    const TokenAttention* by_token() const { return by_token_; }

   private:
    friend class DecodeSparsity;
    CodedAttention coded_;
    PagedAttention paged_;
    TokenAttention* by_token_ = nullptr;
  };

  DecodeSparsity(const Model& model, ComputeThreads& threads);

  /// A prefill is done and its tokens are committed: prepares their keys, where decoding will look for them.
  /// kResourceExhausted.
  Status EndPrefill(Dialogue& dialogue, double* selection_ms);
  /// An answer begins: chooses, or prepares keys, if the dialogue's policy has a budget and the context is long enough;
  /// else steps read everything. measure: MeasureCoverage will be called. kResourceExhausted leaves the latter.
  Status Begin(Dialogue& dialogue, bool measure, double* selection_ms);
  /// Before a step of one row, whose keys `keys` will find.
  Status BeginStep(Dialogue& dialogue, StepKeys* keys, double* selection_ms);
  /// by_token: of the step's keys.
  Reads Of(const Dialogue& dialogue, int layer, const TokenAttention* by_token) const;

  /// For every sparse layer and KV head the true share of attention weight (mean of its group) that the step just run
  /// could see exactly: the queries of position n_tokens - 1 over all keys. Slow: for measuring.
  Result<std::vector<double>> MeasureCoverage(Dialogue& dialogue, const TokenAttention* by_token);

 private:
  /// Extends what tokens of the policy find their keys by to all keys that are stored. False: these keys cannot be
  /// looked through.
  Result<bool> ExtendKeys(Dialogue& dialogue);
  /// The share of the newest query's weight on marked keys, mean over the heads of a KV head.
  double SeenShare(const Dialogue& dialogue, const TokenAttention* by_token, int layer, int kv_head) const;

  const Model& model_;
  ComputeThreads& threads_;
  WorkingSetKeeper keeper_;
};

}  // namespace loopserve
