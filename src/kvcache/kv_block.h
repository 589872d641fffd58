// Memory of one KV block: mapped from the operating system, so that it starts as zeros (nothing of an ended dialogue
// can be read in it) and goes back as soon as the last cache drops it. Large blocks ask for huge pages: decoding reads
// the whole cache for every token. Thread rule: the memory is guarded by KvCache's rule; creation and destruction are
// thread-safe. Ownership: owns its memory and its share of the budget.
#pragma once

#include <cstddef>
#include <memory>

#include "src/kvcache/kv_cache.h"

namespace loopserve {

class KvBlock {
 public:
  /// Null when the operating system has no memory. The caller took layout.block_bytes() from `budget` before; they are
  /// the block's from then on where this succeeds.
  static std::shared_ptr<KvBlock> Create(const KvLayout& layout, std::shared_ptr<KvBudget> budget);
  ~KvBlock();
  KvBlock(const KvBlock&) = delete;
  KvBlock& operator=(const KvBlock&) = delete;

  std::byte* data() { return data_; }
  /// Rows from here on are zero in every layer and head.
  int used_rows() const { return used_rows_; }
  void set_used_rows(int rows) { used_rows_ = rows; }

  /// Copies rows [0, n_rows) of every layer and head from a block of the same layout.
  void CopyRowsFrom(const KvLayout& layout, const KvBlock& source, int n_rows);
  /// Zeroes rows [begin, used_rows()), which are the used ones from there on.
  void ClearRowsFrom(const KvLayout& layout, int begin);

 private:
  KvBlock(std::byte* data, size_t bytes, std::shared_ptr<KvBudget> budget)
      : data_(data), bytes_(bytes), budget_(std::move(budget)) {}

  std::byte* data_;
  size_t bytes_;
  std::shared_ptr<KvBudget> budget_;
  int used_rows_ = 0;
};

}  // namespace loopserve
