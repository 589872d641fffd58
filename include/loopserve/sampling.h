// How the next token is drawn from the logits. Thread rule: a value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loopserve/status.h"

namespace loopserve {

/// What an answer's text must be.
struct AnswerForm {
  /// In llama.cpp's GBNF, with a rule "root"; empty: the answer may be any text. The answer ends where the grammar
  /// does.
  std::string grammar;
  /// The answer is free until this text is in it, and follows the grammar from there on: the grammar's texts must begin
  /// with it. Empty: it follows the grammar from its first token on.
  std::string trigger;
  /// The trigger counts at the very start of the answer alone.
  bool trigger_at_start = false;
  /// Control tokens may stand for their texts where these are part of this text; all others are out of the question.
  std::string control_texts;
};

/// Applied in this order: penalties, then (temperature 0: the largest logit) top_k, top_p, min_p, temperature, draw.
struct SamplingParams {
  /// Divides the logits; 0 = greedy. Range [0, 100].
  float temperature = 0.0f;
  /// Keeps the k most likely tokens; 0 = all. Range [0, 2^31).
  int32_t top_k = 0;
  /// Keeps the smallest set of most likely tokens with at least this probability; 1 = all. Range (0, 1].
  float top_p = 1.0f;
  /// Drops tokens less likely than min_p times the most likely one; 0 = none. Range [0, 1].
  float min_p = 0.0f;
  /// Divides positive and multiplies negative logits of tokens seen in the last penalty_window tokens; 1 = off. (0,
  /// 10].
  float repeat_penalty = 1.0f;
  /// Subtracted once from the logit of every token seen in the window. Range [-2, 2].
  float presence_penalty = 0.0f;
  /// Subtracted per occurrence in the window. Range [-2, 2].
  float frequency_penalty = 0.0f;
  /// Tokens (prompt and answer) that the penalties look back over; 0 = none. Range [0, 2^20].
  int32_t penalty_window = 64;
  /// The same seed, parameters and prompt give the same answer.
  uint64_t seed = 0;
  /// The answer ends after this many tokens; -1 = at the end of the context. Range -1 or >= 0.
  int32_t max_tokens = -1;
  /// The answer ends before the first of these texts, which is not shown. At most 16, none empty, 1 KiB each.
  std::vector<std::string> stop;
  /// Go on when the model ends its answer (for measuring).
  bool ignore_end_of_text = false;

  /// Under a grammar what is drawn is drawn again, from the allowed tokens alone, where the grammar does not allow it.
  AnswerForm form;

  /// kInvalidArgument naming the field, its value and its range.
  Status Validate() const;
};

}  // namespace loopserve
