// Draws tokens from logits, by SamplingParams. Thread rule: one owner; one sampler per answer.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/sampling.h"

namespace loopserve {

class Sampler {
 public:
  /// `params` must be valid (SamplingParams::Validate).
  explicit Sampler(const SamplingParams& params);

  /// The next token. logits: f32 [n_vocab]; NaN counts as minus infinity; if no logit is finite, the first largest
  /// (token 0 when all are NaN). recent: all tokens so far, oldest first (the penalties look at its end).
  Token Sample(std::span<const float> logits, std::span<const Token> recent);

 private:
  SamplingParams params_;
  uint64_t rng_state_;  // own generator (SplitMix64 or PCG), so that a seed means the same with every standard library
  std::vector<std::pair<float, Token>> candidates_;
};

}  // namespace loopserve
