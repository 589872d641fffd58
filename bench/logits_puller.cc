#include "bench/logits_puller.h"

#include <utility>

namespace loopserve::bench {

LogitsPuller::LogitsPuller(LogitsSource source) : source_(std::move(source)) {
  thread_ = std::thread([this] {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return turn_ == Turn::kSource; });
    }
    // A destructor that came before the first Next() still runs the source: it may hold state that must end well.
    Status status = source_([this](int64_t, std::span<const float> row) { Publish(row); });
    const std::lock_guard lock(mutex_);
    status_ = std::move(status);
    row_ = {};
    done_ = true;
    turn_ = Turn::kCaller;
    changed_.notify_all();
  });
}

LogitsPuller::~LogitsPuller() {
  (void)Finish();
  thread_.join();
}

void LogitsPuller::Publish(std::span<const float> row) {
  std::unique_lock lock(mutex_);
  if (skip_) return;
  row_ = row;
  turn_ = Turn::kCaller;
  changed_.notify_all();
  changed_.wait(lock, [&] { return turn_ == Turn::kSource; });
}

Result<std::span<const float>> LogitsPuller::Next() {
  std::unique_lock lock(mutex_);
  if (!done_) {
    turn_ = Turn::kSource;
    changed_.notify_all();
    changed_.wait(lock, [&] { return turn_ == Turn::kCaller; });
  }
  if (done_ && !status_.ok()) return status_;
  return row_;
}

Status LogitsPuller::Finish() {
  std::unique_lock lock(mutex_);
  skip_ = true;
  if (!done_) {
    turn_ = Turn::kSource;
    changed_.notify_all();
    changed_.wait(lock, [&] { return done_; });
  }
  return status_;
}

}  // namespace loopserve::bench
