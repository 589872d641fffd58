// Draws tokens from logits, by SamplingParams. Thread rule: one owner; one sampler per answer.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/sampling.h"

namespace loopserve {

class Sampler {
 public:
  /// `params` must be valid (SamplingParams::Validate).
  explicit Sampler(const SamplingParams& params);

  /// The next token. logits: f32 [n_vocab], n_vocab >= 1; NaN counts as minus infinity; if no logit is finite, or one
  /// is plus infinity, the first largest (token 0 when all are NaN). recent: all tokens so far, oldest first (the
  /// penalties look at its end; tokens outside the vocabulary do not count).
  Token Sample(std::span<const float> logits, std::span<const Token> recent);

 private:
  using Candidate = std::pair<float, Token>;  // logit, token

  std::span<const float> Penalize(std::span<const float> logits, std::span<const Token> recent);
  void KeepBest(std::span<const float> logits, size_t k, float at_least);
  void KeepNucleus(std::span<const float> logits, float max_logit, float at_least);
  Token DrawFromAll(std::span<const float> logits, float max_logit, float at_least);
  Token DrawFromCandidates(float max_logit);
  double NextUniform();

  SamplingParams params_;
  uint64_t rng_state_;  // own generator (SplitMix64), so that a seed means the same with every standard library
  std::vector<Candidate> candidates_;  // most likely first
  std::vector<float> penalized_;       // [n_vocab]
  std::vector<int32_t> counts_;        // [n_vocab], all zero between calls
  std::vector<Token> seen_;            // the tokens whose count is not zero
  std::vector<float> weights_;         // [n_vocab], of DrawFromAll
};

/// The largest value that is not NaN and the first index that has it; {-inf, 0} where there is none. One pass.
std::pair<float, int64_t> FirstLargest(std::span<const float> values);

}  // namespace loopserve
