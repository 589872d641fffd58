#include "src/server/job.h"

#include <utility>

namespace loopserve::server {

void JobChannel::Push(JobEvent event) {
  {
    const std::lock_guard lock(mutex_);
    // Progress that nobody has read yet is old news.
    const bool replaces = std::holds_alternative<PromptProgress>(event) && !events_.empty() &&
                          std::holds_alternative<PromptProgress>(events_.back());
    if (replaces) events_.pop_back();
    events_.push_back(std::move(event));
  }
  arrived_.notify_one();
}

std::optional<JobEvent> JobChannel::Wait(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (!arrived_.wait_for(lock, timeout, [&] { return !events_.empty(); })) return std::nullopt;
  JobEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

}  // namespace loopserve::server
