// The KV cache of one dialogue: keys (after RoPE, at absolute positions) and values of every token it holds, in
// fixed-size blocks that forks share until one of them writes.
// Flow of an append: ReserveTokens -> for each layer StoreRows, then attention over View -> CommitTokens. Whoever gives
// up in between calls Truncate(n_tokens()), which gives unused blocks back.
//
// Thread rule: one thread at a time mutates a cache or its forks (ReserveTokens, CommitTokens, Truncate, Fork); views
// may be read by many threads between mutations. StoreRows may be called by several threads for disjoint rows that
// ReserveTokens made writable. A cache may be destroyed on any thread while its forks go on.
// Ownership: caches own blocks together; a block gives its bytes back to the budget when the last of them drops it.
// A row that was reserved but not stored reads as zeros: never as what another dialogue left in the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "loopserve/status.h"
#include "src/kernels/kv_view.h"
#include "src/kvcache/kv_budget.h"

namespace loopserve {

/// What one token's KV looks like, and how many tokens share a block.
struct KvLayout {
  int n_layers = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  KvType type = KvType::kF16;
  int block_tokens = 256;

  /// kInvalidArgument for counts below 1, a head_dim that the type cannot store, or sizes that overflow. The sizes
  /// below are right only for a valid layout.
  Status Validate() const;
  size_t row_bytes() const { return KvRowBytes(type, head_dim); }
  /// Bytes of keys and values of one token over all layers.
  size_t token_bytes() const { return 2 * row_bytes() * n_kv_heads * n_layers; }
  size_t block_bytes() const { return token_bytes() * block_tokens; }
};

inline constexpr size_t kKvBlockAlignment = 64;

/// Block memory: [n_layers][2: keys, values][n_kv_heads][block_tokens][row_bytes], 64-byte aligned, zero at first.
class KvBlock;

class KvCache {
 public:
  /// An empty cache; allocates nothing yet. `layout` must be valid; no budget = no limit.
  KvCache(const KvLayout& layout, std::shared_ptr<KvBudget> budget);
  ~KvCache();
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;

  const KvLayout& layout() const { return layout_; }
  /// Never null.
  const std::shared_ptr<KvBudget>& budget() const { return budget_; }
  /// Tokens whose KV is complete in every layer.
  int64_t n_tokens() const { return n_tokens_; }

  /// Makes positions [n_tokens, n_tokens + n_new) writable: allocates blocks, and copies a tail block that a fork
  /// shares. Rows stored since the last CommitTokens stay. kResourceExhausted (and nothing changed) when the budget or
  /// memory does not allow it; says how many bytes are needed, used and allowed.
  Status ReserveTokens(int64_t n_new);

  /// Stores key and value, f32 [n_rows, n_kv_heads, head_dim] (rows row_stride floats apart), of one layer at positions
  /// first_position .. first_position + n_rows - 1, which must be reserved.
  void StoreRows(int layer, int64_t first_position, int64_t n_rows, const float* keys, const float* values,
                 int64_t row_stride);

  /// After all layers of n_new tokens were stored: they count from now on.
  void CommitTokens(int64_t n_new);

  /// Forgets all tokens from position n_tokens on (n_tokens <= n_tokens()) and every reservation; frees blocks that
  /// hold none.
  void Truncate(int64_t n_tokens);

  /// A second dialogue with the same past. Full blocks are shared for good, the tail until one of the two writes.
  /// Takes no KV memory. What is reserved but not committed stays with this cache.
  KvCache Fork() const;

  /// Keys and values [0, n_keys) of one layer and KV head; n_keys may include reserved rows that were stored already.
  /// Valid until the next mutation.
  KvHeadView View(int layer, int kv_head, int64_t n_keys) const;

  /// The rows of positions [first, first + n), which lie in one block, as they are in memory: runs in the order
  /// [n_layers][keys, values][n_kv_heads], each [n][row_bytes]; a whole block is one run. What is stored on disk.
  /// Valid until the next mutation of this cache.
  std::vector<std::span<const std::byte>> RowRuns(int64_t first, int64_t n) const;
  /// The same of reserved rows, to be filled.
  std::vector<std::span<std::byte>> ReservedRowRuns(int64_t first, int64_t n);

  /// Bytes of the blocks this cache refers to, and of those that no other cache refers to.
  size_t referenced_bytes() const;
  size_t exclusive_bytes() const;

 private:
  template <typename Byte>
  std::vector<std::span<Byte>> RunsOf(int64_t first, int64_t n) const;
  // Clears what is left in the newly reserved rows.
  void MarkReserved(int64_t end);
  Status AllocateBlocks(size_t n, std::vector<std::shared_ptr<KvBlock>>* blocks) const;

  KvLayout layout_;
  std::shared_ptr<KvBudget> budget_;
  std::vector<std::shared_ptr<KvBlock>> blocks_;  // just enough for n_reserved_ tokens
  std::vector<std::byte*> block_data_;            // blocks_[i]->data(), the form that kernels read
  int64_t n_tokens_ = 0;
  int64_t n_reserved_ = 0;  // positions [n_tokens_, n_reserved_) are writable
};

}  // namespace loopserve
