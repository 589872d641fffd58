// The bytes that all dialogues of an engine hold, against a limit: KV blocks, and what policies keep beside them (codes
// of keys, bounds of pages, copies of what was kept). Thread rule: KvBudget is thread-safe, a KvCharge has one owner.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

namespace loopserve {

class KvBudget {
 public:
  /// limit_bytes 0 = no limit.
  explicit KvBudget(size_t limit_bytes = 0) : limit_bytes_(limit_bytes) {}

  /// Counts `bytes` as used, or changes nothing and returns false where that would pass the limit.
  bool TryTake(size_t bytes);
  /// Gives back what TryTake took.
  void Give(size_t bytes);

  size_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }
  size_t limit_bytes() const { return limit_bytes_; }

 private:
  size_t limit_bytes_;
  std::atomic<size_t> used_bytes_{0};
};

/// Bytes that were taken from a budget; given back when it goes.
class KvCharge {
 public:
  KvCharge() = default;
  ~KvCharge() { Resize(nullptr, 0); }
  KvCharge(KvCharge&& other) noexcept : budget_(std::move(other.budget_)), bytes_(std::exchange(other.bytes_, 0)) {}
  KvCharge& operator=(KvCharge&& other) noexcept {
    if (this == &other) return *this;
    Resize(nullptr, 0);
    budget_ = std::move(other.budget_);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

  /// Holds so many bytes from now on; false, and nothing changed, where `budget` does not allow it. It is the same
  /// budget every time; null: no limit, and nobody counts.
  bool Resize(const std::shared_ptr<KvBudget>& budget, size_t bytes) {
    if (bytes > bytes_) {
      if (budget != nullptr && !budget->TryTake(bytes - bytes_)) return false;
      budget_ = budget;
    } else if (budget_ != nullptr) {
      budget_->Give(bytes_ - bytes);
    }
    bytes_ = bytes;
    return true;
  }
  size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<KvBudget> budget_;
  size_t bytes_ = 0;
};

}  // namespace loopserve
