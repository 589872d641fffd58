// Plays dialogues under policies, one after the other, and stores each as soon as it is done: what is stored is not
// played again. Dialogue by dialogue, not policy by policy: a run that is stopped early has compared the policies on
// the same dialogues. Thread rule: one thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/dialogue_file.h"
#include "eval/played_dialogue.h"
#include "eval/result_store.h"
#include "loopserve/status.h"

namespace loopserve::eval {

/// What runs the model. An interface, so that the rest is tested without one.
class Player {
 public:
  virtual ~Player() = default;
  /// Before the first Play of a dialogue: the policies that it will be played under, in this order, for a player that
  /// has something to share between them until the last of them has played or another dialogue is expected.
  virtual void Expect(const WrittenDialogue& /*dialogue*/, const std::vector<std::string>& /*policies*/) {}
  /// All turns, in order. kCancelled ends the run; every other error is the dialogue's, and the run goes on.
  virtual Result<std::vector<PlayedTurn>> Play(const WrittenDialogue& dialogue, const std::string& policy) = 0;
  virtual int threads() const = 0;
};

struct RunPlan {
  std::vector<WrittenDialogue> dialogues;
  std::vector<std::string> policies;  ///< canonical, each once
};

/// At most `samples` dialogues of each dataset, position and dependency (of the last turn's task), the first ones in
/// their order; those without a task are a kind of their own. 0: all.
std::vector<WrittenDialogue> TakeSamples(std::vector<WrittenDialogue> dialogues, int samples);

struct RunProgress {
  int64_t done = 0;  ///< stored, by this start or an earlier one
  int64_t total = 0;
  const WrittenDialogue* dialogue = nullptr;  ///< comes next
  std::string policy;
  /// By what this start has done so far; empty before anything is.
  std::optional<double> left_ms;
};

struct RunOutcome {
  int64_t total = 0;   ///< dialogues times policies
  int64_t before = 0;  ///< that an earlier start had finished
  int64_t played = 0;  ///< finished by this one
  int64_t failed = 0;
  std::string first_error;  ///< of those that failed
  Status status;            ///< kCancelled, or why the store could not be written: what is counted above is stored
};

struct RunOptions {
  const std::atomic<bool>* cancel = nullptr;  ///< looked at between dialogues; may be null
  std::function<void(const RunProgress&)> on_progress;
};

RunOutcome PlayAll(const RunPlan& plan, Player& player, ResultStore& store, const RunOptions& options);

}  // namespace loopserve::eval
