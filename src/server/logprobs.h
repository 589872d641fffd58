// Log probabilities of tokens, from the logits that an answer's token was drawn from. Thread rule: pure functions.
#pragma once

#include <span>

#include "src/server/job.h"

namespace loopserve::server {

inline constexpr int kMaxTopLogprobs = 20;

/// Sets delta->logprob for delta->token, and delta->top to the n_top most likely tokens. logits: f32 [n_vocab].
/// Probabilities are the model's own: before temperature and penalties.
void AddLogprobs(std::span<const float> logits, int n_top, AnswerDelta* delta);

}  // namespace loopserve::server
