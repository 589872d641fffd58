// What the model keeps of one dialogue: all keys and values, the policy that says which of them are computed with, what
// an eviction policy left of them, and what decode steps choose by: the newest queries, coded keys, pages of keys.
// Thread rule: one thread at a time.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "loopserve/policy.h"
#include "src/kvcache/kv_cache.h"
#include "src/model/coded_keys.h"
#include "src/model/kept_keys.h"
#include "src/model/key_pages.h"
#include "src/model/recent_queries.h"

namespace loopserve {

/// Keys and values of one layer and KV head that a decode step reads, copied side by side. The order is of no meaning.
struct HeadWorkingSet {
  int64_t budget = 0;           ///< keys of a choice
  int64_t capacity = 0;         ///< and those that are written before the next
  std::vector<int32_t> keys;    ///< which
  std::vector<std::byte> rows;  ///< keys [capacity][row_bytes], then values
  std::byte* block = nullptr;   ///< rows.data(), the form that a view reads
};

/// The working sets of an answer on its way; empty between answers.
struct WorkingSets {
  int64_t n_tokens_before = 0;        ///< the context when the answer began
  int64_t n_renewed = 0;              ///< layers that chose anew for the newest step
  std::vector<HeadWorkingSet> heads;  ///< [n_layers][n_kv_heads]; empty: steps read everything
  KvCharge charge;                    ///< of all rows

  bool active() const { return !heads.empty(); }
  void Clear() { *this = WorkingSets(); }
};

/// What a policy needs of a prefill for what follows it, beside keys and values: so many of its newest queries. One
/// that needs more shares no prefill (Policy::SharesPrefill).
int NotedQueries(const Policy& policy);

/// About what a policy keeps beside the KV cache of so many tokens while it answers, of what counts in the budget.
size_t BytesBeside(const Policy& policy, const HyperParams& params, const KvLayout& layout, int64_t n_tokens);

struct Dialogue {
  Dialogue(KvCache cache_in, Policy policy_in, RecentQueries queries_in)
      : cache(std::move(cache_in)),
        policy(std::move(policy_in)),
        queries(std::move(queries_in)),
        kept(cache.layout(), cache.budget()) {}

  /// A second dialogue with the same past.
  Dialogue Fork() const {
    Dialogue fork(cache.Fork(), policy, queries);
    fork.coded_keys = coded_keys;
    fork.kept = kept.Fork();
    return fork;
  }
  /// What it has taken of the KV budget, and what no fork shares of it.
  size_t kv_bytes() const { return cache.referenced_bytes() + coded_keys.bytes() + bytes_beside(); }
  size_t exclusive_kv_bytes() const { return cache.exclusive_bytes() + coded_keys.exclusive_bytes() + bytes_beside(); }
  /// Forgets tokens from n_tokens on. n_same: as in KeptKeys::Truncate.
  void Truncate(int64_t n_tokens, int64_t n_same) {
    cache.Truncate(n_tokens);
    queries.Truncate(n_tokens);
    coded_keys.Truncate(n_tokens);
    kept.Truncate(n_tokens, n_same);
    key_pages.Truncate(n_tokens);
    EndAnswer();
  }
  void Truncate(int64_t n_tokens) { Truncate(n_tokens, n_tokens); }

  /// Whether steps of the answer on its way read less than everything.
  bool decodes_sparsely() const { return working_sets.active() || chooses_by_token || kept.active(); }
  /// Steps read everything that is kept from now on.
  void EndAnswer() {
    working_sets.Clear();
    chooses_by_token = false;
    least_weights.clear();
  }

  KvCache cache;
  Policy policy;
  RecentQueries queries;
  KeptKeys kept;
  CodedKeys coded_keys;
  KeyPages key_pages;
  WorkingSets working_sets;
  std::vector<float> least_weights;  ///< [n_layers][choices of a layer]: keys that are lighter are not considered
  bool measures_coverage = false;    ///< steps remember which keys they read
  bool chooses_by_token = false;     ///< each step of the answer on its way finds its keys, by codes or pages

 private:
  size_t bytes_beside() const { return kept.bytes() + key_pages.bytes() + working_sets.charge.bytes(); }
};

}  // namespace loopserve
