// One pass of the transformer over new tokens of one dialogue: appends their KV and gives logits. Chooses between the
// decode graph (few rows) and layer-major prefill (many).
// Thread rule: one owner; one pass at a time, over any dialogue's cache.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "loopserve/engine.h"
#include "src/kvcache/kv_cache.h"
#include "src/model/compute_threads.h"
#include "src/model/gemm.h"
#include "src/model/model.h"

namespace loopserve {

struct ForwardOptions {
  LinearPath linear_path = LinearPath::kAuto;
  size_t weight_cache_bytes = 0;
};

struct ForwardStats {
  double linear_ms = 0;  ///< everything but attention
  double attention_ms = 0;
};

class DecodeGraph;
class Prefill;

class Forward {
 public:
  /// Passes of up to this many rows go through the decode graph.
  static constexpr int64_t kDecodeRows = 8;

  /// kUnsupported if the linear path does not exist on this CPU or in this build.
  static Result<std::unique_ptr<Forward>> Create(const Model& model, ComputeThreads& threads,
                                                 const ForwardOptions& options);
  ~Forward();

  LinearPath linear_path() const { return linear_path_; }

  /// Computes tokens at positions cache.n_tokens()... and commits their KV. last_logits: f32 [n_vocab], of the last
  /// token. on_logits, if set, gets every row's logits. Errors leave the cache as it was (kCancelled,
  /// kResourceExhausted, kInternal). stats may be null.
  Status Run(KvCache& cache, std::span<const Token> tokens, const RunControl& control, const LogitsCallback& on_logits,
             std::vector<float>* last_logits, ForwardStats* stats);

 private:
  Forward() = default;

  LinearPath linear_path_ = LinearPath::kQuantized;
  std::unique_ptr<Gemm> gemm_;         ///< of the layers
  std::unique_ptr<Gemm> logits_gemm_;  ///< f32: scoring asks for every row's logits, and is never what a user waits for
  std::unique_ptr<DecodeGraph> decode_;
  std::unique_ptr<Prefill> prefill_;
};

}  // namespace loopserve
