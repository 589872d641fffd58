#include "eval/runner.h"

#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "src/base/clock.h"

namespace loopserve::eval {
namespace {

/// How much there is to read: what a dialogue takes follows it well enough for an estimate.
double WorkOf(const WrittenDialogue& dialogue) {
  double bytes = 0;
  for (const DialogueTurn& turn : dialogue.turns) bytes += static_cast<double>(turn.user.size());
  return bytes;
}

/// One start of a run: what is left, and how long that will take.
class Run {
 public:
  Run(const RunPlan& plan, Player& player, ResultStore& store, const RunOptions& options)
      : plan_(plan), player_(player), store_(store), options_(options) {}

  RunOutcome Execute() {
    outcome_.total = static_cast<int64_t>(plan_.dialogues.size() * plan_.policies.size());
    outcome_.status = Begin();
    for (const WrittenDialogue& dialogue : plan_.dialogues) {
      const std::vector<std::string> policies = Unfinished(dialogue);
      if (!policies.empty()) player_.Expect(dialogue, policies);
      for (const std::string& policy : policies) {
        if (!outcome_.status.ok()) return std::move(outcome_);
        outcome_.status = PlayOne(dialogue, policy);
      }
    }
    return std::move(outcome_);
  }

 private:
  Status Begin() {
    LS_ASSIGN_OR_RETURN(finished_, store_.Finished());
    for (const WrittenDialogue& dialogue : plan_.dialogues) {
      const size_t left = Unfinished(dialogue).size();
      outcome_.before += static_cast<int64_t>(plan_.policies.size() - left);
      work_left_ += static_cast<double>(left) * WorkOf(dialogue);
    }
    return Status::Ok();
  }

  std::vector<std::string> Unfinished(const WrittenDialogue& dialogue) const {
    std::vector<std::string> policies;
    for (const std::string& policy : plan_.policies) {
      if (finished_.count({dialogue.id, policy}) == 0) policies.push_back(policy);
    }
    return policies;
  }

  Status PlayOne(const WrittenDialogue& dialogue, const std::string& policy) {
    if (options_.cancel != nullptr && options_.cancel->load()) return Interrupted();
    ReportProgress(&dialogue, policy);
    const Clock::time_point start = Clock::now();
    PlayedDialogue played{.dialogue = dialogue.id, .policy = policy, .threads = player_.threads()};
    Result<std::vector<PlayedTurn>> turns = player_.Play(dialogue, policy);
    if (turns.status().code() == StatusCode::kCancelled) return Interrupted();
    // The disk is full or broken: the next dialogue would fare no better, and this one is left to a later start.
    if (turns.status().code() == StatusCode::kIoError) return turns.status();
    if (turns.ok()) {
      played.turns = std::move(*turns);
    } else {
      played.error = turns.status().message();
    }
    LS_RETURN_IF_ERROR(store_.Add(played));
    ++(turns.ok() ? outcome_.played : outcome_.failed);
    if (!turns.ok() && outcome_.first_error.empty()) {
      outcome_.first_error = dialogue.id + ", " + policy + ": " + played.error;
    }
    work_left_ -= WorkOf(dialogue);
    if (!turns.ok()) return Status::Ok();  // failures are quick: they say nothing about the time of the others
    work_done_ += WorkOf(dialogue);
    spent_ms_ += MillisecondsSince(start);
    return Status::Ok();
  }

  static Status Interrupted() {
    return Status(StatusCode::kCancelled, "interrupted; what was finished is stored, and the same command goes on");
  }

  void ReportProgress(const WrittenDialogue* dialogue, const std::string& policy) const {
    if (!options_.on_progress) return;
    RunProgress progress{.done = outcome_.before + outcome_.played + outcome_.failed,
                         .total = outcome_.total,
                         .dialogue = dialogue,
                         .policy = policy};
    if (work_done_ > 0) progress.left_ms = spent_ms_ / work_done_ * work_left_;
    options_.on_progress(progress);
  }

  const RunPlan& plan_;
  Player& player_;
  ResultStore& store_;
  const RunOptions& options_;
  std::set<std::pair<std::string, std::string>> finished_;
  RunOutcome outcome_;
  double work_left_ = 0, work_done_ = 0, spent_ms_ = 0;
};

}  // namespace

std::vector<WrittenDialogue> TakeSamples(std::vector<WrittenDialogue> dialogues, int samples) {
  if (samples == 0) return dialogues;
  std::map<std::tuple<std::string, int, int>, int> taken;
  std::vector<WrittenDialogue> kept;
  for (WrittenDialogue& dialogue : dialogues) {
    const std::optional<TurnTask>& task = dialogue.turns.back().task;
    const auto kind =
        task ? std::tuple(task->dataset, static_cast<int>(task->position), static_cast<int>(task->dependency))
             : std::tuple(std::string(), -1, -1);
    if (taken[kind]++ < samples) kept.push_back(std::move(dialogue));
  }
  return kept;
}

RunOutcome PlayAll(const RunPlan& plan, Player& player, ResultStore& store, const RunOptions& options) {
  return Run(plan, player, store, options).Execute();
}

}  // namespace loopserve::eval
