#include "src/kvcache/kv_block.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

namespace loopserve {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

// Zeroed memory, at a huge page's border where it is large enough to hold one; null when there is none.
std::byte* MapBlock(size_t bytes) {
  const size_t slack = bytes >= kHugePageBytes ? kHugePageBytes : 0;
  if (bytes > SIZE_MAX - slack) return nullptr;
  void* mapped = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  if (slack == 0) return static_cast<std::byte*>(mapped);

  auto* begin = static_cast<std::byte*>(mapped);
  const size_t before = (kHugePageBytes - reinterpret_cast<uintptr_t>(begin) % kHugePageBytes) % kHugePageBytes;
  if (before > 0) munmap(begin, before);
  // What is left of the slack behind the block: whole pages only, since the block's last page stays.
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t end = (before + bytes + page - 1) / page * page;
  if (end < bytes + slack) munmap(begin + end, bytes + slack - end);
#ifdef MADV_HUGEPAGE
  madvise(begin + before, bytes, MADV_HUGEPAGE);  // a wish: without huge pages it is only slower
#endif
  return begin + before;
}

}  // namespace

std::shared_ptr<KvBlock> KvBlock::Create(const KvLayout& layout, std::shared_ptr<KvBudget> budget) {
  const size_t bytes = layout.block_bytes();
  std::byte* data = MapBlock(bytes);
  if (data == nullptr) return nullptr;
  // The block gets the budget last: one that is deleted on the way must not give back what is still the caller's.
  auto* block = new (std::nothrow) KvBlock(data, bytes, nullptr);
  if (block == nullptr) {
    munmap(data, bytes);
    return nullptr;
  }
  try {
    std::shared_ptr<KvBlock> shared(block);
    shared->budget_ = std::move(budget);
    return shared;
  } catch (const std::bad_alloc&) {  // shared_ptr deleted the block
    return nullptr;
  }
}

KvBlock::~KvBlock() {
  munmap(data_, bytes_);
  if (budget_ != nullptr) budget_->Give(bytes_);
}

void KvBlock::CopyRowsFrom(const KvLayout& layout, const KvBlock& source, int n_rows) {
  const size_t segment_bytes = layout.row_bytes() * layout.block_tokens;
  const size_t copy_bytes = layout.row_bytes() * n_rows;
  for (size_t offset = 0; offset < bytes_; offset += segment_bytes) {
    std::memcpy(data_ + offset, source.data_ + offset, copy_bytes);
  }
  used_rows_ = std::max(used_rows_, n_rows);
}

void KvBlock::ClearRowsFrom(const KvLayout& layout, int begin) {
  if (begin >= used_rows_) return;
  const size_t segment_bytes = layout.row_bytes() * layout.block_tokens;
  const size_t begin_bytes = layout.row_bytes() * begin;
  const size_t clear_bytes = layout.row_bytes() * (used_rows_ - begin);
  for (size_t offset = 0; offset < bytes_; offset += segment_bytes) {
    std::memset(data_ + offset + begin_bytes, 0, clear_bytes);
  }
  used_rows_ = begin;
}

}  // namespace loopserve
