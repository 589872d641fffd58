// The keys of a dialogue in one bit per element, and the mean values of their neighbours: what a decode step looks
// through to find the keys that matter to it, and what the others count as (docs/algorithm.md, "Decode").
//
// Keys are coded when a prefill ends, and in an answer whenever a whole group of kCodeGroupKeys is there. A run of up
// to kRunGroups groups shares a codebook. What is coded is never coded again: the same tokens in the same turns give
// the same codes. Copies share runs until one of them codes more of the last: a fork costs nothing. A run counts in the
// KV budget from its first group on, as if it were whole.
// Thread rule: one owner; Extend works on the compute threads. A copy may be read and destroyed on another thread while
// the others go on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "loopserve/status.h"
#include "src/kernels/key_codes.h"
#include "src/kvcache/kv_cache.h"
#include "src/model/compute_threads.h"
#include "src/model/hyper_params.h"
#include "src/model/recent_queries.h"

namespace loopserve {

class CodedKeys {
 public:
  /// Keys at the beginning of a context that are not looked for but always read: sinks are unlike all others.
  static constexpr int kSinks = 16;
  static constexpr int kRunGroups = 32;
  static constexpr int64_t kRunKeys = int64_t{kRunGroups} * kCodeGroupKeys;

  /// Neighbouring groups of one layer and KV head with one codebook.
  struct Run {
    int n_groups = 0;
    KeyCodebook book;
    std::vector<uint8_t> codes;      ///< [n_groups][CodeGroupBytes]
    std::vector<float> value_means;  ///< [n_groups][head_dim], sinks left out
  };

  /// Keys [0, n_keys()) are coded.
  int64_t n_keys() const { return n_keys_; }
  /// Run r holds keys from kRunKeys * r on.
  int n_runs() const { return static_cast<int>((n_keys_ + kRunKeys - 1) / kRunKeys); }
  const Run& run(int layer, int kv_head, int r) const {
    return runs_[static_cast<size_t>(r)]->heads[static_cast<size_t>(int64_t{layer} * n_kv_heads_ + kv_head)];
  }
  /// What a run takes of the KV budget.
  static size_t RunBytes(const HyperParams& params);
  /// What all runs have taken, and those that no copy shares.
  size_t bytes() const;
  size_t exclusive_bytes() const;

  /// Codes the whole groups that are not, of layers without a sliding window. False if keys or queries are not finite:
  /// such a context cannot be read by codes. kResourceExhausted (the cache's budget too) leaves what there was.
  Result<bool> Extend(const KvCache& cache, const RecentQueries& queries, const HyperParams& params,
                      ComputeThreads& threads);
  /// Forgets groups that are not whole any more when only n_tokens tokens are left.
  void Truncate(int64_t n_tokens);

  /// For snapshots: groups of run r, and its bytes (docs/snapshot_format.md). They cannot be made again from the keys:
  /// codebooks depend on the queries of the turn in which they were fitted.
  int n_groups(int r) const;
  std::vector<std::byte> EncodeRun(int r, const HyperParams& params) const;
  /// Appends the run that follows those held; only the last one may have fewer than kRunGroups groups. kCorruptData if
  /// the bytes are not those of n_groups groups of such a model, kResourceExhausted; nothing has changed then.
  Status AppendRun(std::span<const std::byte> bytes, int n_groups, const HyperParams& params,
                   const std::shared_ptr<KvBudget>& budget);

 private:
  /// A run of all heads.
  struct SharedRun {
    KvCharge charge;
    std::vector<Run> heads;  // [n_layers * n_kv_heads]; empty for layers with a window
  };
  static Result<std::shared_ptr<SharedRun>> NewRun(const HyperParams& params, const std::shared_ptr<KvBudget>& budget);
  /// Runs for groups [n_keys() / kCodeGroupKeys, end_group), which nobody shares.
  Status MakeWritable(const HyperParams& params, const std::shared_ptr<KvBudget>& budget, int64_t end_group);
  /// Codes groups [n_groups, end_group) of a head. False: not finite.
  bool ExtendHead(const KvCache& cache, const std::vector<float>& query_energy, int layer, int kv_head,
                  int64_t end_group);

  int n_kv_heads_ = 0;
  int64_t n_keys_ = 0;
  // n_runs() of them. The last may hold more groups than count: of what was forgotten.
  std::vector<std::shared_ptr<SharedRun>> runs_;
};

}  // namespace loopserve
