#include "src/model/kept_keys.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "src/base/check.h"

namespace loopserve {
namespace {

/// Rows are added one at a time by answers: room for so many more is made at once.
constexpr int64_t kSpareRows = 256;

}  // namespace

KeptKeys::KeptKeys(const KvLayout& layout, std::shared_ptr<KvBudget> budget)
    : layout_(layout),
      budget_(std::move(budget)),
      column_sums_(static_cast<size_t>(layout.n_layers) * static_cast<size_t>(layout.n_kv_heads)),
      rows_(column_sums_.size()) {}

KeptKeys KeptKeys::Fork() const {
  KeptKeys fork(layout_, budget_);
  fork.awaited_answer = awaited_answer;
  fork.choices_ = choices_;
  fork.remembered_ = remembered_;
  fork.observers_ = observers_;
  fork.column_sums_ = column_sums_;
  return fork;
}

int64_t KeptKeys::Count(int layer, int kv_head, int64_t n_tokens) const {
  if (!active()) return n_tokens;
  const KeptChoice& choice = choices_.back();
  LS_CHECK(n_tokens >= choice.n_tokens);
  return std::ssize(choice.positions[Index(layer, kv_head)]) + n_tokens - choice.n_tokens;
}

int64_t KeptKeys::PositionOf(int layer, int kv_head, int64_t i) const {
  if (!active()) return i;
  const KeptChoice& choice = choices_.back();
  const std::vector<int32_t>& kept = choice.positions[Index(layer, kv_head)];
  return i < std::ssize(kept) ? kept[static_cast<size_t>(i)] : choice.n_tokens + i - std::ssize(kept);
}

std::vector<uint8_t> KeptKeys::Seen(int layer, int kv_head, int64_t n_tokens) const {
  std::vector<uint8_t> seen(static_cast<size_t>(n_tokens), 0);
  const int64_t n = Count(layer, kv_head, n_tokens);
  for (int64_t i = 0; i < n; ++i) seen[static_cast<size_t>(PositionOf(layer, kv_head, i))] = 1;
  return seen;
}

void KeptKeys::Reserve(Rows& rows, int64_t n) const {
  if (n <= rows.capacity) return;
  const int64_t capacity = n + std::max(kSpareRows, n / 8);
  const size_t row_bytes = layout_.row_bytes();
  const size_t bytes = 2 * static_cast<size_t>(capacity) * row_bytes;
  if (!rows.charge.Resize(budget_, bytes)) throw std::bad_alloc();
  std::vector<std::byte> data(bytes);
  const size_t used = static_cast<size_t>(rows.n) * row_bytes;
  if (used > 0) {
    std::memcpy(data.data(), rows.block, used);
    std::memcpy(data.data() + data.size() / 2, rows.block + rows.data.size() / 2, used);
  }
  rows.data = std::move(data);
  rows.block = rows.data.data();
  rows.capacity = capacity;
}

size_t KeptKeys::bytes() const {
  size_t bytes = 0;
  for (const Rows& rows : rows_) bytes += rows.charge.bytes();
  return bytes;
}

void KeptKeys::Extend(const KvCache& cache, int layer, int kv_head, int64_t n_tokens) {
  Rows& rows = rows_[Index(layer, kv_head)];
  const int64_t n = Count(layer, kv_head, n_tokens);
  if (n <= rows.n) return;
  Reserve(rows, n);
  const KvHeadView kv = cache.View(layer, kv_head, n_tokens);
  for (; rows.n < n; ++rows.n) {
    const int64_t position = PositionOf(layer, kv_head, rows.n);
    std::byte* key = rows.block + static_cast<size_t>(rows.n) * kv.row_bytes;
    std::memcpy(key, kv.Key(position), kv.row_bytes);
    std::memcpy(key + static_cast<size_t>(rows.capacity) * kv.row_bytes, kv.Value(position), kv.row_bytes);
  }
}

Status KeptKeys::Prepare(const KvCache& cache, int64_t n_new) {
  if (!active()) return Status::Ok();
  try {
    for (int layer = 0; layer < layout_.n_layers; ++layer) {
      for (int head = 0; head < layout_.n_kv_heads; ++head) {
        if (choices_.back().positions[Index(layer, head)].empty()) continue;
        Reserve(rows_[Index(layer, head)], Count(layer, head, cache.n_tokens() + n_new));
        Extend(cache, layer, head, cache.n_tokens());
      }
    }
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for the keys and values that are kept");
  }
  return Status::Ok();
}

KvHeadView KeptKeys::View(int layer, int kv_head) const {
  const Rows& rows = rows_[Index(layer, kv_head)];
  KvHeadView view;
  view.type = layout_.type;
  view.head_dim = layout_.head_dim;
  view.block_tokens = static_cast<int>(rows.capacity);
  view.n_keys = rows.n;
  view.row_bytes = layout_.row_bytes();
  view.blocks = &rows.block;
  view.value_offset_bytes = static_cast<size_t>(rows.capacity) * view.row_bytes;
  return view;
}

void KeptKeys::Add(KeptChoice choice, const RecentQueries& observers) {
  LS_CHECK(choices_.empty() || choice.n_tokens > choices_.back().n_tokens);
  choices_.push_back(std::move(choice));
  observers_ = observers;
  remembered_.reset();
  awaited_answer = -1;
  RestoreColumnSums();
  for (Rows& rows : rows_) rows.n = 0;
}

void KeptKeys::RestoreColumnSums() {
  if (!choices_.empty() && !choices_.back().column_sums.empty()) {
    column_sums_ = choices_.back().column_sums;
  } else {
    for (std::vector<float>& sums : column_sums_) sums.clear();
  }
}

void KeptKeys::Truncate(int64_t n_tokens, int64_t n_same) {
  remembered_.reset();
  bool is_other = false;
  for (; !choices_.empty() && choices_.back().n_tokens > n_tokens; choices_.pop_back()) {
    if (choices_.back().n_tokens == n_same) remembered_ = std::move(choices_.back());
    is_other = true;
  }
  if (is_other) {
    for (Rows& rows : rows_) rows.n = 0;
  }
  ForgetRows(n_tokens);
  if (observers_) observers_->Truncate(n_tokens);
  if (awaited_answer > n_tokens) awaited_answer = -1;
  RestoreColumnSums();
}

void KeptKeys::ForgetRows(int64_t n_tokens) {
  for (size_t i = 0; i < rows_.size(); ++i) {
    const auto layer = static_cast<int>(i / static_cast<size_t>(layout_.n_kv_heads));
    const auto head = static_cast<int>(i % static_cast<size_t>(layout_.n_kv_heads));
    rows_[i].n = active() ? std::min(rows_[i].n, Count(layer, head, n_tokens)) : 0;
  }
}

bool KeptKeys::Resume(int64_t n_tokens) {
  std::optional<KeptChoice> choice = std::exchange(remembered_, std::nullopt);
  if (!choice || choice->n_tokens != n_tokens) return false;
  choices_.push_back(std::move(*choice));
  RestoreColumnSums();
  for (Rows& rows : rows_) rows.n = 0;
  return true;
}

const float* KeptKeys::FindObserver(int layer, int64_t position) const {
  return observers_ ? observers_->Find(layer, position) : nullptr;
}

void KeptKeys::AddColumnSums(int layer, int kv_head, std::span<const float> sums) {
  std::vector<float>& all = column_sums_[Index(layer, kv_head)];
  if (all.size() < sums.size()) all.resize(sums.size(), 0.0f);
  for (size_t i = 0; i < sums.size(); ++i) all[i] += sums[i];
}

}  // namespace loopserve
