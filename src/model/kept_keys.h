// What a dialogue still attends to under an eviction policy: of each KV head the positions that were kept when it was
// compressed, and all that came after, their keys and values copied side by side for the dense kernels.
//
// Life: while nothing was evicted there is nothing here and the KV cache is read. Evictor (evictor.h) adds a choice at
// the end of a prefill. From then on every pass extends the heads by its new rows and reads View. The cache keeps all
// rows: what a head holds can be made anew from it, so forks copy choices only, and a dialogue that is rewound behind a
// choice goes back to the one before it.
// Thread rule: one owner; Extend may be called by several threads for different heads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "loopserve/status.h"
#include "src/kvcache/kv_cache.h"
#include "src/model/recent_queries.h"

namespace loopserve {

/// What was kept of a context at one time. Lists are [n_layers][n_kv_heads], empty for layers that are not compressed.
struct KeptChoice {
  int64_t n_tokens = 0;                         ///< of the context
  std::vector<std::vector<int32_t>> positions;  ///< ascending; no lists: nothing was evicted
  std::vector<std::vector<float>> column_sums;  ///< of these positions (or of all); no lists: none were counted
};

class KeptKeys {
 public:
  /// Copies count in `budget`; null: nobody counts.
  explicit KeptKeys(const KvLayout& layout, std::shared_ptr<KvBudget> budget = nullptr);
  KeptKeys(KeptKeys&&) = default;
  KeptKeys& operator=(KeptKeys&&) = default;
  /// The same choices; rows are copied again from the fork's cache when it needs them.
  KeptKeys Fork() const;

  /// Whether something was evicted.
  bool active() const { return !choices_.empty() && !choices_.back().positions.empty(); }
  /// Those in force, oldest first; the last says what is kept.
  std::span<const KeptChoice> choices() const { return choices_; }

  /// Of a context of n_tokens: how many positions a head holds, and the i-th of them.
  int64_t Count(int layer, int kv_head, int64_t n_tokens) const;
  int64_t PositionOf(int layer, int kv_head, int64_t i) const;
  /// Marks [n_tokens] of those positions.
  std::vector<uint8_t> Seen(int layer, int kv_head, int64_t n_tokens) const;

  /// Makes a head's copies complete for a context of n_tokens. Throws nothing but std::bad_alloc (where the budget has
  /// no room too), and not even that where Prepare made room.
  void Extend(const KvCache& cache, int layer, int kv_head, int64_t n_tokens);
  /// What copies have taken of the KV budget.
  size_t bytes() const;
  /// All heads of the cache's tokens, with room for n_new more. kResourceExhausted.
  Status Prepare(const KvCache& cache, int64_t n_new);
  /// What a head holds, as far as it was extended. Valid until the next call.
  KvHeadView View(int layer, int kv_head) const;

  /// From now on `choice` is what is kept. `observers`: the queries that it was made by.
  void Add(KeptChoice choice, const RecentQueries& observers);
  /// Forgets positions from n_tokens on, and choices that knew any of them. n_same: tokens that will stand there again
  /// as they were, should the dialogue be computed up to there: a choice of exactly these is remembered.
  void Truncate(int64_t n_tokens, int64_t n_same);
  /// A step failed: forgets copies from position n_tokens on, and nothing else.
  void ForgetRows(int64_t n_tokens);
  /// Takes the remembered choice into force if it is one of n_tokens. It is forgotten otherwise.
  bool Resume(int64_t n_tokens);
  /// The query of `position` that the last choice was made by, or null.
  const float* FindObserver(int layer, int64_t position) const;

  /// Attention that a head's positions had from the rows of prefills (f32, may be shorter: nothing yet).
  std::span<const float> column_sums(int layer, int kv_head) const { return column_sums_[Index(layer, kv_head)]; }
  void AddColumnSums(int layer, int kv_head, std::span<const float> sums);

  /// Where an answer begins whose tokens decide what is kept; -1: none is waited for.
  int64_t awaited_answer = -1;

 private:
  struct Rows {
    KvCharge charge;
    int64_t n = 0;
    int64_t capacity = 0;
    std::vector<std::byte> data;  ///< keys [capacity][row_bytes], then values
    std::byte* block = nullptr;   ///< data.data(), the form that a view reads
  };
  size_t Index(int layer, int kv_head) const {
    return static_cast<size_t>(int64_t{layer} * layout_.n_kv_heads + kv_head);
  }
  void Reserve(Rows& rows, int64_t n) const;
  void RestoreColumnSums();

  KvLayout layout_;
  std::shared_ptr<KvBudget> budget_;
  std::vector<KeptChoice> choices_;
  std::optional<KeptChoice> remembered_;
  std::optional<RecentQueries> observers_;
  std::vector<std::vector<float>> column_sums_;
  std::vector<Rows> rows_;
};

}  // namespace loopserve
