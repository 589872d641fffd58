// The keys of a dialogue in one bit per element, and the mean values of their neighbours: what a decode step looks
// through to find the keys that matter to it, and what the others count as (docs/algorithm.md, "Decode").
//
// Keys are coded when a prefill ends, and in an answer whenever a whole group of kCodeGroupKeys is there. A run of up
// to kRunGroups groups shares a codebook. What is coded is never coded again: the same tokens in the same turns give
// the same codes. Thread rule: one owner; Extend works on the compute threads.
#pragma once

#include <cstddef>
#include <cstdint>
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
    return heads_[static_cast<size_t>(int64_t{layer} * n_kv_heads_ + kv_head)][static_cast<size_t>(r)];
  }

  /// Codes the whole groups that are not, of layers without a sliding window. False if keys or queries are not finite:
  /// such a context cannot be read by codes. kResourceExhausted leaves what there was.
  Result<bool> Extend(const KvCache& cache, const RecentQueries& queries, const HyperParams& params,
                      ComputeThreads& threads);
  /// Forgets groups that are not whole any more when only n_tokens tokens are left.
  void Truncate(int64_t n_tokens);

  /// For snapshots: groups of run r, and its bytes (docs/snapshot_format.md). They cannot be made again from the keys:
  /// codebooks depend on the queries of the turn in which they were fitted.
  int n_groups(int r) const;
  std::vector<std::byte> EncodeRun(int r, const HyperParams& params) const;
  /// Appends the run that follows those held; only the last one may have fewer than kRunGroups groups. False, and
  /// nothing changed, if the bytes are not those of n_groups groups of such a model.
  bool AppendRun(std::span<const std::byte> bytes, int n_groups, const HyperParams& params);

 private:
  /// Codes groups [n_groups, end_group) of a head. False: not finite.
  bool ExtendHead(const KvCache& cache, const std::vector<float>& query_energy, int layer, int kv_head,
                  int64_t end_group);

  int n_kv_heads_ = 0;
  int64_t n_keys_ = 0;
  std::vector<std::vector<Run>> heads_;  // [n_layers * n_kv_heads]; empty runs for layers with a window
};

}  // namespace loopserve
