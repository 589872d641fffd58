// Who computes when. One thread, the engine's, owns all dialogues: it takes requests out of the queue, reads their
// prompts, and writes the answers of all running requests, a token of each in one pass through the model. While a long
// prompt is read the answers go on: at most half of the time is theirs then, so that both get on. And shorter prompts
// are read in between (reading_order.h).
//
// Each dialogue computes exactly what it would compute alone (RunControl::yield, Engine::StepAnswers): what others do
// at the same time changes nothing but when.
//
// Thread rule: Submit, OnEngineThread, pool() and the counts are thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "loopserve/engine.h"
#include "src/server/job.h"
#include "src/server/metrics.h"
#include "src/server/session_pool.h"

namespace loopserve::server {

struct SchedulerOptions {
  size_t max_running = 16;                           ///< requests whose prompts are read or whose answers are written
  size_t max_waiting = 256;                          ///< beyond them a request is refused
  std::chrono::milliseconds progress_interval{250};  ///< from one PromptProgress to the next
  PoolOptions pool;
};

class Scheduler {
 public:
  /// metrics may be null; it must outlive this.
  Scheduler(std::shared_ptr<Engine> engine, const SchedulerOptions& options, Metrics* metrics);
  /// As Stop(0).
  ~Scheduler();

  /// Puts a request into the queue; its events come on `channel`, JobFailed or JobDone last. An error where it is
  /// refused: the queue is full, the server stops, or it could never fit into the KV budget.
  std::optional<ApiError> Submit(JobSpec spec, std::shared_ptr<JobChannel> channel);

  /// Runs `work` between two steps and waits for it; false where the server stops.
  bool OnEngineThread(const std::function<void(SessionPool&)>& work);

  /// No new requests. Those that wait fail, those that run may go on for so long, then they fail too.
  void Stop(std::chrono::milliseconds grace);

  const SessionPool& pool() const { return pool_; }
  size_t n_running() const { return n_running_.load(std::memory_order_relaxed); }
  size_t n_waiting() const;

 private:
  struct Writer;
  struct Active;
  struct Turn;
  struct Waiting {
    JobSpec spec;
    std::shared_ptr<JobChannel> channel;
    Clock::time_point arrival;
  };
  struct Candidate {
    Waiting waiting;
    SessionPool::Lease lease;
    bool has_room = false;  ///< room was made for it
  };

  void Loop();
  bool WaitForWork();
  void RunTasks();
  void DropDeadWaiters();
  void Admit();
  /// Makes the first of the queue that may be read now and whose dialogue is free the next.
  void TakeNext();
  /// The next, which is none any more.
  Candidate TakeHeldBack();
  size_t CountWaiting() const { return queue_.size() + (next_ ? 1 : 0); }
  /// Whether the prompts on their way let it be read before them.
  bool MayReadNow(const JobSpec& spec) const;
  /// Why it need not wait any longer, if so.
  std::optional<ApiError> WhyGivenUp(const Waiting& waiting) const;
  bool MakeRoomFor(const Waiting& waiting, const HeldDialogue& dialogue);
  size_t BytesFor(const JobSpec& spec, int64_t answer_tokens, const HeldDialogue* dialogue) const;
  size_t PlannedBytes() const;
  void Start(Waiting waiting, const SessionPool::Lease& lease);
  Status ReadPrompt(Active& active, const SessionPool::Lease& lease);
  Status BeginAnswers(Active& active);
  void YieldFromPrompt(Active& reading);
  void TellReaders();
  /// One token for each answer; false where none could be written for want of memory.
  bool WriteRound();
  bool WriteTokens(std::span<const Turn> turns);
  void Deliver(const Turn& turn, Result<AnswerStep> step);
  void CountToken(const Active& active, Writer& writer, Token token);
  void FailForMemory();
  /// Whether the client is gone or its time is over, or the server goes down; fails it then.
  bool IsOver(Active& active);
  void Fail(Active& active, const ApiError& error);
  void Finish(Active& active);
  void RemoveFinished();
  void UpdateMetrics();

  const std::shared_ptr<Engine> engine_;
  const SchedulerOptions options_;
  Metrics* const metrics_;
  SessionPool pool_;

  mutable std::mutex mutex_;
  std::condition_variable work_arrived_;
  std::deque<Waiting> queue_;                ///< highest priority first, then in order of arrival
  std::deque<std::function<void()>> tasks_;  ///< of OnEngineThread
  std::optional<Candidate> next_;            ///< waits for memory, before all others; the engine's thread reads freely
  bool stopping_ = false;
  Clock::time_point stop_deadline_;
  std::atomic<size_t> n_running_{0};

  // The engine's thread alone.
  std::list<std::unique_ptr<Active>> active_;
  std::vector<Active*> reading_;  ///< their prompts are on their way, each in the yield of the one before
  Clock::time_point round_end_;
  Clock::duration round_duration_{};

  std::thread thread_;
};

}  // namespace loopserve::server
