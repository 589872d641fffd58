#include "src/server/scheduler.h"

#include <algorithm>
#include <future>
#include <utility>

#include "src/base/check.h"
#include "src/base/format.h"
#include "src/base/log.h"
#include "src/server/scheduler_state.h"

namespace loopserve::server {
namespace {

ApiError StoppingError() { return NotReadyError("the server is going down"); }

ApiError TooLargeError(size_t needed, size_t budget) {
  return {400, "invalid_request_error", "context_length_exceeded",
          "the prompt needs " + FormatBytes(needed) + " of KV, but the server's KV budget is " + FormatBytes(budget)};
}

}  // namespace

Scheduler::Scheduler(std::shared_ptr<Engine> engine, const SchedulerOptions& options, Metrics* metrics)
    : engine_(std::move(engine)), options_(options), metrics_(metrics), pool_(engine_, options.pool) {
  thread_ = std::thread([this] { Loop(); });
}

Scheduler::~Scheduler() {
  Stop(std::chrono::milliseconds(0));
  thread_.join();
}

size_t Scheduler::n_waiting() const {
  const std::lock_guard lock(mutex_);
  return CountWaiting();
}

std::optional<ApiError> Scheduler::Submit(JobSpec spec, std::shared_ptr<JobChannel> channel) {
  const size_t budget = options_.pool.kv_budget_bytes;
  const size_t least = BytesFor(spec, 0, nullptr);
  if (budget > 0 && least > budget) return TooLargeError(least, budget);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return StoppingError();
    if (CountWaiting() >= options_.max_waiting) return QueueFullError(CountWaiting());
    const auto at = std::ranges::find_if(queue_, [&](const Waiting& w) { return w.spec.priority < spec.priority; });
    queue_.insert(at, Waiting{std::move(spec), std::move(channel), Clock::now()});
  }
  work_arrived_.notify_one();
  return std::nullopt;
}

bool Scheduler::OnEngineThread(const std::function<void(SessionPool&)>& work) {
  std::promise<void> done;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    tasks_.push_back([&] {
      work(pool_);
      done.set_value();
    });
  }
  work_arrived_.notify_one();
  done.get_future().wait();
  return true;
}

void Scheduler::Stop(std::chrono::milliseconds grace) {
  {
    const std::lock_guard lock(mutex_);
    const auto deadline = Clock::now() + grace;
    if (!stopping_ || deadline < stop_deadline_) stop_deadline_ = deadline;
    stopping_ = true;
  }
  work_arrived_.notify_one();
}

void Scheduler::Loop() {
  while (WaitForWork()) {
    RunTasks();
    DropDeadWaiters();
    Admit();
    if (!WriteRound()) FailForMemory();
    RemoveFinished();
    UpdateMetrics();
  }
  RunTasks();
  pool_.SaveAll();
}

/// False when all is done and the server stops.
bool Scheduler::WaitForWork() {
  std::unique_lock lock(mutex_);
  work_arrived_.wait(lock,
                     [&] { return stopping_ || !queue_.empty() || !tasks_.empty() || !active_.empty() || next_; });
  if (!stopping_) return true;
  if (next_) {
    next_->waiting.channel->Push(JobFailed{StoppingError()});
    next_.reset();  // with its lease: nothing is held any more when the server goes
  }
  for (Waiting& waiting : queue_) waiting.channel->Push(JobFailed{StoppingError()});
  queue_.clear();
  return !active_.empty();
}

void Scheduler::RunTasks() {
  std::deque<std::function<void()>> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (const auto& task : tasks) task();
}

std::optional<ApiError> Scheduler::WhyGivenUp(const Waiting& waiting) const {
  if (waiting.channel->cancelled().load(std::memory_order_relaxed)) return NotReadyError("the client is gone");
  const auto timeout = waiting.spec.timeout;
  if (timeout.count() == 0 || Clock::now() < waiting.arrival + timeout) return std::nullopt;
  return TimeoutError(static_cast<double>(timeout.count()) / 1000);
}

/// Clients that left the queue, and those whose time is over before their turn came.
void Scheduler::DropDeadWaiters() {
  const auto given_up = [&](const Waiting& waiting) {
    const std::optional<ApiError> error = WhyGivenUp(waiting);
    if (error) waiting.channel->Push(JobFailed{*error});
    return error.has_value();
  };
  if (next_ && given_up(next_->waiting)) pool_.Release(TakeHeldBack().lease.dialogue, 0);
  const std::lock_guard lock(mutex_);
  std::erase_if(queue_, given_up);
}

bool Scheduler::IsOver(Active& active) {
  if (active.finished) return true;
  const auto now = Clock::now();
  bool stop = false;
  {
    const std::lock_guard lock(mutex_);
    stop = stopping_ && now >= stop_deadline_;
  }
  const JobSpec& spec = active.spec();
  if (active.channel().cancelled().load(std::memory_order_relaxed)) {
    Fail(active, NotReadyError("the client is gone"));
  } else if (spec.timeout.count() > 0 && now >= active.waiting.arrival + spec.timeout) {
    Fail(active, TimeoutError(static_cast<double>(spec.timeout.count()) / 1000));
  } else if (stop) {
    Fail(active, StoppingError());
  } else {
    return false;
  }
  return true;
}

void Scheduler::Fail(Active& active, const ApiError& error) {
  active.channel().Push(JobFailed{error});
  Finish(active);
}

void Scheduler::Finish(Active& active) { active.finished = true; }

/// Gives the dialogues back, but for those that Sync is still at work in. Then clients are told of the end: whoever has
/// a reply finds its dialogue as it is.
void Scheduler::RemoveFinished() {
  for (auto it = active_.begin(); it != active_.end();) {
    Active& active = **it;
    if (!active.finished || std::ranges::find(reading_, &active) != reading_.end()) {
      ++it;
      continue;
    }
    active.writers.clear();  // their answers point at the dialogue
    pool_.Release(active.dialogue, active.was_read ? static_cast<int64_t>(active.spec().prompt.size()) : 0);
    if (active.is_done) active.channel().Push(JobDone{});
    it = active_.erase(it);
  }
}

void Scheduler::UpdateMetrics() {
  n_running_.store(active_.size(), std::memory_order_relaxed);
  if (metrics_ == nullptr) return;
  metrics_->SetLoad(active_.size(), n_waiting());
  metrics_->SetMemory(engine_->kv_used_bytes(), options_.pool.kv_budget_bytes, pool_.size(), pool_.n_dropped(),
                      pool_.n_unloaded());
}

}  // namespace loopserve::server
