// One answer (or several to the same prompt) that a client wants: what is to be done, and the channel on which the
// engine's thread tells the HTTP thread how it goes.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "loopserve/engine.h"
#include "src/base/clock.h"
#include "src/server/api_error.h"

namespace loopserve::server {

/// Who may share what is held: dialogues of different tenants, or of different salts, never meet.
struct NameSpace {
  std::string tenant;
  std::string salt;
  bool operator==(const NameSpace&) const = default;
};

/// Which dialogue a client means.
struct SessionName {
  std::string value;  ///< empty: the longest common prefix decides
  /// One dialogue has this name, and is rewound where a prompt differs. Else the name is a hint, which several may
  /// have.
  bool exclusive = false;
};

struct JobSpec {
  std::vector<Token> prompt;
  SamplingParams sampling;
  int n = 1;              ///< answers; their seeds count up from sampling.seed
  int first_choice = 0;   ///< the number of the first of them in the reply
  int top_logprobs = -1;  ///< -1: none are wanted; 0: of the drawn token only
  Policy policy;
  NameSpace name_space;
  SessionName name;
  int priority = 0;                      ///< higher goes first
  bool measure_quality = false;          ///< RunControl::measure_quality
  std::chrono::milliseconds timeout{0};  ///< 0: as long as it takes
};

struct TokenLogprob {
  Token token = -1;
  float logprob = 0;
};

/// Why less was reused than was held, for people and programs.
struct Divergence {
  int64_t token = 0;   ///< the first token of the prompt that was not found
  std::string reason;  ///< "history_differs", "policy_changed", "not_held"
};

/// The prompt is being read.
struct PromptProgress {
  int64_t total_tokens = 0;
  int64_t cached_tokens = 0;
  double share = 0;
  double elapsed_ms = 0;
};
/// It was read; the first token comes soon.
struct PromptRead {
  SyncStats stats;
  std::string session_id;
  std::optional<Divergence> divergence;
};
/// A token, or the end of one of the answers.
struct AnswerDelta {
  int choice = 0;
  Token token = -1;
  std::string text;
  std::optional<TokenLogprob> logprob;
  std::vector<TokenLogprob> top;  ///< most likely first
  bool ended = false;
  GenerationStats stats;  ///< when it ended
};
/// The job cannot go on.
struct JobFailed {
  ApiError error;
};
/// Nothing follows.
struct JobDone {};

using JobEvent = std::variant<PromptProgress, PromptRead, AnswerDelta, JobFailed, JobDone>;

/// From the engine's thread to one HTTP thread; several jobs may share one. Thread-safe.
class JobChannel {
 public:
  void Push(JobEvent event);
  /// The next event, or nothing after `timeout`.
  std::optional<JobEvent> Wait(std::chrono::milliseconds timeout);
  /// The client wants no more: the jobs end at their next step.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  const std::atomic<bool>& cancelled() const { return cancelled_; }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<JobEvent> events_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace loopserve::server
