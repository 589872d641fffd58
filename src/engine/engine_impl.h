// What stands behind the public Engine: the model, its tokenizer, the compute threads and the KV budget that all
// sessions share. Thread rule: as in loopserve/engine.h.
#pragma once

#include <memory>
#include <mutex>

#include "loopserve/engine.h"
#include "src/kvcache/kv_cache.h"
#include "src/kvcache/snapshot_format.h"
#include "src/model/compute_threads.h"
#include "src/model/forward.h"
#include "src/model/model.h"
#include "src/tokenizer/tokenizer.h"

namespace loopserve {

class EngineImpl {
 public:
  static Result<std::shared_ptr<EngineImpl>> Open(const EngineOptions& options);

  const ModelInfo& info() const { return info_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const KvLayout& kv_layout() const { return kv_layout_; }
  const std::shared_ptr<KvBudget>& kv_budget() const { return kv_budget_; }
  const HyperParams& params() const { return model_->params(); }
  Forward& forward() { return *forward_; }
  /// What stored sessions must have in common with this engine. Thread-safe; made when it is first asked for.
  const SnapshotKey& snapshot_key() const;

 private:
  EngineImpl() = default;
  Status Load(const EngineOptions& options);
  void Describe(const EngineOptions& options);

  // In this order: what is below points into what is above.
  std::unique_ptr<Model> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ComputeThreads> threads_;
  std::unique_ptr<Forward> forward_;
  KvLayout kv_layout_;
  std::shared_ptr<KvBudget> kv_budget_;
  ModelInfo info_;
  mutable std::once_flag snapshot_key_made_;
  mutable SnapshotKey snapshot_key_;
};

}  // namespace loopserve
