// What the model keeps of one dialogue: all keys and values, the policy that says which of them are computed with, and
// the newest queries, by which a decode step's working set is chosen.
// Thread rule: one thread at a time.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "loopserve/policy.h"
#include "src/kvcache/kv_cache.h"

namespace loopserve {

/// The queries (after RoPE) of the newest positions, of every layer: a ring over positions.
class RecentQueries {
 public:
  /// n_positions 0: keeps nothing. width: floats of one position's queries, all heads.
  RecentQueries(int n_layers, int n_positions, int64_t width);

  int n_positions() const { return n_positions_; }
  /// Keeps the last of rows [first_position, first_position + n_rows) of a layer; q: f32 [n_rows, width].
  void Store(int layer, int64_t first_position, int64_t n_rows, const float* q);
  /// Forgets positions from n_tokens on.
  void Truncate(int64_t n_tokens);
  /// The queries of `position`, or null if they are not held.
  const float* Find(int layer, int64_t position) const;

 private:
  int n_positions_;
  int64_t width_;
  std::vector<int64_t> position_of_;  ///< [n_layers][n_positions], -1 = empty
  std::vector<float> queries_;        ///< [n_layers][n_positions][width]
};

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
  int64_t n_steps = 0;                ///< decode steps since the answer began
  std::vector<HeadWorkingSet> heads;  ///< [n_layers][n_kv_heads]; empty: steps read everything

  bool active() const { return !heads.empty(); }
  void Clear() { *this = WorkingSets(); }
};

struct Dialogue {
  Dialogue(KvCache cache_in, Policy policy_in, RecentQueries queries_in)
      : cache(std::move(cache_in)), policy(std::move(policy_in)), queries(std::move(queries_in)) {}

  /// A second dialogue with the same past.
  Dialogue Fork() const { return {cache.Fork(), policy, queries}; }
  void Truncate(int64_t n_tokens) {
    cache.Truncate(n_tokens);
    queries.Truncate(n_tokens);
    working_sets.Clear();
  }

  KvCache cache;
  Policy policy;
  RecentQueries queries;
  WorkingSets working_sets;
};

}  // namespace loopserve
