// What stands behind the public Engine: the model, its tokenizer, the compute threads and the KV budget that all
// sessions share. Thread rule: as in loopserve/engine.h.
#pragma once

#include <memory>

#include "loopserve/engine.h"
#include "src/kvcache/kv_cache.h"
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
  Forward& forward() { return *forward_; }

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
};

}  // namespace loopserve
