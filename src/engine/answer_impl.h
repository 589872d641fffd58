// An answer on its way: one decode step after another, what is drawn from them, and the figures.
// Thread rule: as in loopserve/engine.h.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "src/base/clock.h"
#include "src/engine/answer_constraint.h"
#include "src/engine/sampler.h"
#include "src/engine/session_impl.h"
#include "src/engine/text_stream.h"

namespace loopserve {

/// What answers that are drawn and answers that are replayed share: working sets from Begin on, one step after another.
class AnswerSteps {
 public:
  /// The session must outlive it. measure: RunControl::measure_quality.
  AnswerSteps(SessionImpl& session, bool measure)
      : session_(session), measure_(measure), start_(Clock::now()), last_token_(start_) {}
  ~AnswerSteps();
  AnswerSteps(const AnswerSteps&) = delete;
  AnswerSteps& operator=(const AnswerSteps&) = delete;

  Status Begin();
  /// A token was drawn.
  void CountToken(GenerationStats* stats);
  /// Computes what follows a token. After kResourceExhausted it may be called again.
  Status Step(Token token);
  /// One of several that are computed in one pass.
  struct Shared {
    AnswerSteps* steps = nullptr;
    Token token = -1;
    Status status = Status::Ok();
  };
  /// Step of each, of different sessions of one engine.
  static void StepTogether(std::span<Shared> answers);
  /// The last token was drawn. After kResourceExhausted it may be called again.
  Status Finish();
  void Report(GenerationStats* stats) const;

 private:
  SessionImpl& session_;
  const bool measure_;
  Clock::time_point start_, last_token_;
  ForwardStats forward_;
  double off_the_clock_ms_ = 0;
  std::vector<double> coverage_;  // of each head, added up over steps
  int64_t measured_steps_ = 0;
};

class AnswerImpl {
 public:
  /// `params` must be valid, the session's logits known.
  AnswerImpl(SessionImpl& session, const SamplingParams& params, const RunControl& control);

  Status Begin();
  Result<AnswerStep> Next();
  Result<AnswerStep> Stop();
  GenerationStats stats() const;

  /// Next in two parts: what follows the token drawn last has to be computed (a step of `steps()`), then Advance.
  std::optional<Token> PendingToken() const;
  Result<AnswerStep> Advance();
  AnswerSteps& steps() { return steps_; }
  const SessionImpl& session() const { return session_; }

 private:
  /// Draws a token and decides whether it is the last.
  Result<AnswerStep> Draw();
  Result<AnswerStep> End(AnswerStep step, StopReason reason);
  /// Does what is left to do after the last token, and gives its step.
  Result<AnswerStep> Close();

  SessionImpl& session_;
  const SamplingParams params_;
  const std::atomic<bool>* const cancel_;
  AnswerSteps steps_;
  Sampler sampler_;
  std::unique_ptr<AnswerConstraint> constraint_;  // null where the answer may be any text
  TextStream stream_;
  GenerationStats stats_;
  std::vector<Token> history_;      // what the penalties look at
  Token pending_ = -1;              // drawn, its KV not computed
  std::optional<AnswerStep> last_;  // of an answer that has still to be closed
  bool ended_ = false;
};

}  // namespace loopserve
