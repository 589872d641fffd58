// Plays a benchmark's dialogue against a model: answers, scores and figures of every turn, and how near they are to
// dense attention. Thread rule: one thread, as for a Session.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "eval/runner.h"
#include "loopserve/engine.h"

namespace loopserve {

/// The answer's length where a turn has no task that says it.
inline constexpr int64_t kDefaultAnswerTokens = 256;

struct EvalPlayerOptions {
  /// No answer is longer; 0: as the tasks say.
  int64_t max_answer_tokens = 0;
  /// Leads every policy through the dense dialogue as well (bench/answer_fidelity.h). Takes a second prefill of what
  /// differs from the policy's own dialogue.
  bool fidelity = false;
  std::string scratch_dir;  ///< for the dense logits of one dialogue
  const std::atomic<bool>* cancel = nullptr;
};

std::unique_ptr<eval::Player> MakeEvalPlayer(std::shared_ptr<Engine> engine, const EvalPlayerOptions& options);

}  // namespace loopserve
