#include "src/server/scheduler.h"

#include <algorithm>
#include <future>
#include <utility>

#include "src/base/check.h"
#include "src/base/format.h"
#include "src/base/log.h"
#include "src/server/logprobs.h"
#include "src/server/scheduler_state.h"

namespace loopserve::server {
namespace {

constexpr auto kProgressInterval = std::chrono::milliseconds(250);

double SecondsSince(Clock::time_point start) { return MillisecondsSince(start) / 1000; }

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
  return queue_.size();
}

std::optional<ApiError> Scheduler::Submit(JobSpec spec, std::shared_ptr<JobChannel> channel) {
  const size_t budget = options_.pool.kv_budget_bytes;
  const size_t least = BytesFor(spec, 0, nullptr);
  if (budget > 0 && least > budget) return TooLargeError(least, budget);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return StoppingError();
    if (queue_.size() >= options_.max_waiting) return QueueFullError(queue_.size());
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
  if (next_ && given_up(next_->waiting)) {
    pool_.Release(next_->lease.dialogue, 0);
    next_.reset();
  }
  const std::lock_guard lock(mutex_);
  std::erase_if(queue_, given_up);
}

void Scheduler::YieldFromPrompt(Active& reading) {
  if (IsOver(reading)) {
    reading.stop_reading.store(true);
    return;
  }
  const auto now = Clock::now();
  if (now - reading.last_progress >= kProgressInterval) {
    reading.last_progress = now;
    reading.channel().Push(PromptProgress{static_cast<int64_t>(reading.spec().prompt.size()), reading.cached_tokens,
                                          reading.share_read, MillisecondsSince(reading.reading_start)});
  }
  // The prompt gets as much time as the round before took.
  if (now - round_end_ < round_duration_) return;
  WriteRound();
}

bool Scheduler::WriteRound() {
  const auto start = Clock::now();
  bool any = false, stepped = false;
  for (const auto& active : active_) {
    if (active->finished || !active->was_read || active->writers.empty()) continue;
    any = true;
    stepped = StepActive(*active) == Stepped::kYes || stepped;
  }
  round_end_ = Clock::now();
  round_duration_ = round_end_ - start;
  return !any || stepped;
}

Scheduler::Stepped Scheduler::StepActive(Active& active) {
  if (IsOver(active)) return Stepped::kYes;
  Stepped all = Stepped::kNoMemory;
  bool is_done = true;
  for (const auto& writer : active.writers) {
    if (writer->ended) continue;
    if (StepWriter(active, *writer) == Stepped::kYes) all = Stepped::kYes;
    if (active.finished) return Stepped::kYes;
    is_done = is_done && writer->ended;
  }
  if (is_done) {
    active.channel().Push(JobDone{});
    Finish(active);
  }
  return all;
}

Scheduler::Stepped Scheduler::StepWriter(Active& active, Writer& writer) {
  Result<AnswerStep> step = writer.answer->Next();
  if (!step.ok() && step.status().code() == StatusCode::kResourceExhausted &&
      pool_.MakeRoom(engine_->kv_block_bytes())) {
    step = writer.answer->Next();
  }
  if (!step.ok()) {
    if (step.status().code() == StatusCode::kResourceExhausted) return Stepped::kNoMemory;
    Fail(active, ToApiError(step.status()));
    return Stepped::kYes;
  }
  AnswerDelta delta;
  delta.choice = writer.choice;
  delta.token = step->token;
  delta.text = std::move(step->text);
  delta.ended = writer.ended = step->ended;
  if (active.spec().top_logprobs >= 0 && step->token >= 0 && !writer.session->logits().empty()) {
    AddLogprobs(writer.session->logits(), active.spec().top_logprobs, &delta);
  }
  const auto now = Clock::now();
  if (metrics_ != nullptr && step->token >= 0) {
    if (writer.last_token == Clock::time_point()) {
      metrics_->CountFirstToken(SecondsSince(active.waiting.arrival));
    } else {
      metrics_->CountNextToken(ToMilliseconds(now - writer.last_token) / 1000);
    }
  }
  writer.last_token = now;
  if (writer.ended) {
    delta.stats = writer.answer->stats();
    if (metrics_ != nullptr) metrics_->CountAnswer(delta.stats, SecondsSince(active.waiting.arrival));
  }
  active.channel().Push(std::move(delta));
  return Stepped::kYes;
}

/// Every answer waits for memory: the youngest request gives its own to the others.
void Scheduler::FailForMemory() {
  for (auto it = active_.rbegin(); it != active_.rend(); ++it) {
    if ((*it)->finished) continue;
    Fail(**it, ToApiError(Status(StatusCode::kResourceExhausted, "the answers that run have filled the KV budget of " +
                                                                     FormatBytes(options_.pool.kv_budget_bytes) +
                                                                     "; this one was given up")));
    return;
  }
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

/// Not while a prompt is read: its dialogue may be one of them.
void Scheduler::RemoveFinished() {
  for (auto it = active_.begin(); it != active_.end();) {
    Active& active = **it;
    if (!active.finished) {
      ++it;
      continue;
    }
    active.writers.clear();  // their answers point at the dialogue
    pool_.Release(active.dialogue, active.was_read ? static_cast<int64_t>(active.spec().prompt.size()) : 0);
    it = active_.erase(it);
  }
}

void Scheduler::UpdateMetrics() {
  n_running_.store(active_.size(), std::memory_order_relaxed);
  if (metrics_ == nullptr) return;
  metrics_->SetLoad(active_.size(), n_waiting());
  metrics_->SetMemory(engine_->kv_used_bytes(), options_.pool.kv_budget_bytes, pool_.size(), pool_.n_dropped());
}

}  // namespace loopserve::server
