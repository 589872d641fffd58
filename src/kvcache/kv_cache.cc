#include "src/kvcache/kv_cache.h"

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "src/base/check.h"
#include "src/kernels/attention.h"
#include "src/kvcache/kv_block.h"

namespace loopserve {
namespace {

Status Exhausted(const std::string& reason, const std::string& needed, const KvBudget& budget) {
  const std::string limit =
      budget.limit_bytes() == 0 ? "no limit is set" : "the limit is " + std::to_string(budget.limit_bytes()) + " bytes";
  return Status(StatusCode::kResourceExhausted, reason + ": " + needed + " more bytes are needed, " +
                                                    std::to_string(budget.used_bytes()) + " bytes are used, " + limit);
}

int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0); }

}  // namespace

Status KvLayout::Validate() const {
  if (n_layers < 1 || n_kv_heads < 1 || head_dim < 1 || block_tokens < 1) {
    return Status(StatusCode::kInvalidArgument,
                  "KV layout: layers, KV heads, head dimension and block tokens must be at least 1");
  }
  if (type == KvType::kQ8_0 && head_dim % 32 != 0) {
    return Status(StatusCode::kInvalidArgument,
                  "KV in q8_0 needs a head dimension that is a multiple of 32, not " + std::to_string(head_dim));
  }
  size_t bytes = row_bytes();
  for (const int factor : {2, n_kv_heads, n_layers, block_tokens}) {
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(factor), &bytes)) {
      return Status(StatusCode::kInvalidArgument, "KV layout: the size of a block overflows");
    }
  }
  return Status::Ok();
}

bool KvBudget::TryTake(size_t bytes) {
  size_t used = used_bytes_.load(std::memory_order_relaxed);
  size_t wanted = 0;
  do {
    if (__builtin_add_overflow(used, bytes, &wanted)) return false;
    if (limit_bytes_ != 0 && wanted > limit_bytes_) return false;
  } while (!used_bytes_.compare_exchange_weak(used, wanted, std::memory_order_relaxed));
  return true;
}

void KvBudget::Give(size_t bytes) {
  const size_t before = used_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  LS_CHECK(before >= bytes);
}

KvCache::KvCache(const KvLayout& layout, std::shared_ptr<KvBudget> budget)
    : layout_(layout), budget_(budget != nullptr ? std::move(budget) : std::make_shared<KvBudget>()) {
  LS_CHECK(layout.Validate().ok());
}

KvCache::~KvCache() = default;

KvCache::KvCache(KvCache&& other) noexcept
    : layout_(other.layout_),
      budget_(other.budget_),  // shared, so that the empty cache left behind still works
      blocks_(std::move(other.blocks_)),
      block_data_(std::move(other.block_data_)),
      n_tokens_(std::exchange(other.n_tokens_, 0)),
      n_reserved_(std::exchange(other.n_reserved_, 0)) {
  other.blocks_.clear();
  other.block_data_.clear();
}

KvCache& KvCache::operator=(KvCache&& other) noexcept {
  if (this == &other) return *this;
  layout_ = other.layout_;
  budget_ = other.budget_;
  blocks_ = std::move(other.blocks_);
  block_data_ = std::move(other.block_data_);
  n_tokens_ = std::exchange(other.n_tokens_, 0);
  n_reserved_ = std::exchange(other.n_reserved_, 0);
  other.blocks_.clear();
  other.block_data_.clear();
  return *this;
}

Status KvCache::AllocateBlocks(size_t n, std::vector<std::shared_ptr<KvBlock>>* blocks) const {
  if (n == 0) return Status::Ok();
  size_t bytes = 0;
  if (__builtin_mul_overflow(n, layout_.block_bytes(), &bytes)) {
    return Exhausted("the KV cache would be too large", "over 2^64", *budget_);
  }
  if (!budget_->TryTake(bytes)) {
    return Exhausted("the KV cache's memory limit is reached", std::to_string(bytes), *budget_);
  }
  try {
    blocks->reserve(n);
  } catch (const std::exception&) {  // bad_alloc or length_error
    budget_->Give(bytes);
    return Exhausted("no memory for the KV cache", std::to_string(bytes), *budget_);
  }
  for (size_t made = 0; made < n; ++made) {
    std::shared_ptr<KvBlock> block = KvBlock::Create(layout_, budget_);
    if (block == nullptr) {
      budget_->Give((n - made) * layout_.block_bytes());
      blocks->clear();  // gives the rest back
      return Exhausted("no memory for the KV cache", std::to_string(bytes), *budget_);
    }
    blocks->push_back(std::move(block));
  }
  return Status::Ok();
}

Status KvCache::ReserveTokens(int64_t n_new) {
  LS_CHECK(n_new >= 0);
  int64_t end = 0;
  if (__builtin_add_overflow(n_tokens_, n_new, &end)) {
    return Exhausted("the KV cache would be too large", "over 2^63", *budget_);
  }
  if (n_new == 0) return Status::Ok();
  end = std::max(end, n_reserved_);
  const int64_t block_tokens = layout_.block_tokens;
  const size_t n_held = blocks_.size();
  const size_t n_blocks = static_cast<size_t>(CeilDiv(end, block_tokens));
  // Only the block in which n_tokens_ lies can be shared and be written: Fork takes no blocks behind it.
  const size_t tail = static_cast<size_t>(n_tokens_ / block_tokens);
  const bool copy_tail = tail < n_held && blocks_[tail].use_count() > 1;
  // A fork that was saved and destroyed on another thread has read rows that may now be written: giving up a reference
  // of our own comes after its giving up, which looking at the count alone does not.
  if (tail < n_held && !copy_tail) std::shared_ptr<KvBlock>(blocks_[tail]).reset();

  std::vector<std::shared_ptr<KvBlock>> added;
  LS_RETURN_IF_ERROR(AllocateBlocks(n_blocks - n_held + (copy_tail ? 1 : 0), &added));
  try {
    blocks_.reserve(n_blocks);
    block_data_.reserve(n_blocks);
  } catch (const std::exception&) {
    return Exhausted("no memory for the KV cache", std::to_string(n_blocks * 24), *budget_);
  }

  // Nothing fails from here on.
  if (copy_tail) {
    // Behind n_reserved_ lies what a fork may have written: not ours to take.
    const int64_t rows = std::min(n_reserved_ - static_cast<int64_t>(tail) * block_tokens, block_tokens);
    added.back()->CopyRowsFrom(layout_, *blocks_[tail], static_cast<int>(rows));
    blocks_[tail] = std::move(added.back());
    block_data_[tail] = blocks_[tail]->data();
    added.pop_back();
  }
  for (std::shared_ptr<KvBlock>& block : added) {
    block_data_.push_back(block->data());
    blocks_.push_back(std::move(block));
  }
  MarkReserved(end);
  return Status::Ok();
}

void KvCache::MarkReserved(int64_t end) {
  const int64_t block_tokens = layout_.block_tokens;
  for (int64_t position = n_reserved_; position < end;) {
    const int64_t index = position / block_tokens;
    KvBlock& block = *blocks_[static_cast<size_t>(index)];
    const int64_t block_end = std::min(end - index * block_tokens, block_tokens);
    // Rows that were truncated, or that a fork wrote before it went.
    block.ClearRowsFrom(layout_, static_cast<int>(position - index * block_tokens));
    block.set_used_rows(static_cast<int>(block_end));
    position = index * block_tokens + block_end;
  }
  n_reserved_ = end;
}

void KvCache::StoreRows(int layer, int64_t first_position, int64_t n_rows, const float* keys, const float* values,
                        int64_t row_stride) {
  LS_CHECK(layer >= 0 && layer < layout_.n_layers);
  LS_CHECK(n_rows >= 0 && first_position >= n_tokens_ && n_rows <= n_reserved_ - first_position);
  const size_t row_bytes = layout_.row_bytes();
  const size_t segment_bytes = row_bytes * layout_.block_tokens;
  const size_t layer_offset = segment_bytes * 2 * layout_.n_kv_heads * layer;
  for (int64_t row = 0; row < n_rows; ++row) {
    const int64_t position = first_position + row;
    std::byte* block = block_data_[static_cast<size_t>(position / layout_.block_tokens)];
    std::byte* target = block + layer_offset + static_cast<size_t>(position % layout_.block_tokens) * row_bytes;
    for (const float* source : {keys + row * row_stride, values + row * row_stride}) {
      for (int head = 0; head < layout_.n_kv_heads; ++head) {
        StoreKvRow(layout_.type, source + static_cast<int64_t>(head) * layout_.head_dim, layout_.head_dim, target);
        target += segment_bytes;
      }
    }
  }
}

void KvCache::CommitTokens(int64_t n_new) {
  LS_CHECK(n_new >= 0 && n_new <= n_reserved_ - n_tokens_);
  n_tokens_ += n_new;
}

void KvCache::Truncate(int64_t n_tokens) {
  LS_CHECK(n_tokens >= 0 && n_tokens <= n_tokens_);
  n_tokens_ = n_tokens;
  n_reserved_ = n_tokens;
  const size_t n_blocks = static_cast<size_t>(CeilDiv(n_tokens, layout_.block_tokens));
  blocks_.resize(n_blocks);
  block_data_.resize(n_blocks);
}

KvCache KvCache::Fork() const {
  KvCache fork(layout_, budget_);
  const auto n_blocks = static_cast<std::ptrdiff_t>(CeilDiv(n_tokens_, layout_.block_tokens));
  fork.blocks_.assign(blocks_.begin(), blocks_.begin() + n_blocks);
  fork.block_data_.assign(block_data_.begin(), block_data_.begin() + n_blocks);
  fork.n_tokens_ = n_tokens_;
  fork.n_reserved_ = n_tokens_;
  return fork;
}

KvHeadView KvCache::View(int layer, int kv_head, int64_t n_keys) const {
  LS_CHECK(layer >= 0 && layer < layout_.n_layers && kv_head >= 0 && kv_head < layout_.n_kv_heads);
  LS_CHECK(n_keys >= 0 && n_keys <= n_reserved_);
  KvHeadView view;
  view.type = layout_.type;
  view.head_dim = layout_.head_dim;
  view.block_tokens = layout_.block_tokens;
  view.n_keys = n_keys;
  view.row_bytes = layout_.row_bytes();
  view.blocks = block_data_.data();
  const size_t segment_bytes = view.row_bytes * layout_.block_tokens;
  view.key_offset_bytes = segment_bytes * (static_cast<size_t>(layer) * 2 * layout_.n_kv_heads + kv_head);
  view.value_offset_bytes = view.key_offset_bytes + segment_bytes * layout_.n_kv_heads;
  return view;
}

template <typename Byte>
std::vector<std::span<Byte>> KvCache::RunsOf(int64_t first, int64_t n) const {
  const int64_t row = first % layout_.block_tokens;
  LS_CHECK(first >= 0 && n >= 1 && row + n <= layout_.block_tokens);
  std::byte* block = block_data_[static_cast<size_t>(first / layout_.block_tokens)];
  if (n == layout_.block_tokens) return {std::span<Byte>(block, layout_.block_bytes())};
  const size_t row_bytes = layout_.row_bytes();
  const size_t segment_bytes = row_bytes * layout_.block_tokens;
  std::vector<std::span<Byte>> runs;
  runs.reserve(layout_.block_bytes() / segment_bytes);
  for (size_t offset = 0; offset < layout_.block_bytes(); offset += segment_bytes) {
    runs.emplace_back(block + offset + row_bytes * row, row_bytes * n);
  }
  return runs;
}

std::vector<std::span<const std::byte>> KvCache::RowRuns(int64_t first, int64_t n) const {
  LS_CHECK(first + n <= n_tokens_);
  return RunsOf<const std::byte>(first, n);
}

std::vector<std::span<std::byte>> KvCache::ReservedRowRuns(int64_t first, int64_t n) {
  LS_CHECK(first >= n_tokens_ && first + n <= n_reserved_);
  return RunsOf<std::byte>(first, n);
}

size_t KvCache::referenced_bytes() const { return blocks_.size() * layout_.block_bytes(); }

size_t KvCache::exclusive_bytes() const {
  const auto n =
      std::count_if(blocks_.begin(), blocks_.end(), [](const auto& block) { return block.use_count() == 1; });
  return static_cast<size_t>(n) * layout_.block_bytes();
}

}  // namespace loopserve
