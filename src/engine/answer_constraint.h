// Draws tokens for an answer that has a form (AnswerForm): what the sampler draws is taken where the grammar allows it,
// which one look tells; only where it does not, the whole vocabulary is masked and a second token drawn. Thread rule:
// one owner; one per answer.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "src/engine/sampler.h"
#include "src/tokenizer/tokenizer.h"

namespace loopserve {

class AnswerConstraint {
 public:
  /// `tokenizer` must outlive it. Errors: as Engine::CheckForm.
  static Result<std::unique_ptr<AnswerConstraint>> Create(const Tokenizer& tokenizer, const AnswerForm& form);

  /// The next token. Errors: kUnsupported where no token can go on within the form.
  Result<Token> Draw(Sampler& sampler, std::span<const float> logits, std::span<const Token> recent);
  /// Whether the grammar is in force; its control tokens are shown then.
  bool in_force() const { return in_force_; }
  /// Whether the answer is complete and nothing may follow.
  bool must_end() const { return in_force_ && matcher_->must_end(); }

 private:
  AnswerConstraint(const Tokenizer& tokenizer, const AnswerForm& form) : tokenizer_(tokenizer), form_(form) {}
  Result<Token> DrawInForce(Sampler& sampler, std::span<const float> logits, std::span<const Token> recent);
  Result<Token> DrawBefore(Sampler& sampler, std::span<const float> logits, std::span<const Token> recent);
  /// The text from the trigger on, once `text` has it.
  std::optional<std::string> FindTrigger(const std::string& text) const;

  const Tokenizer& tokenizer_;
  const AnswerForm form_;
  std::unique_ptr<GrammarMatcher> matcher_;
  bool in_force_ = false;
  std::string text_;           // before the grammar is in force: where the trigger may still begin
  std::vector<float> masked_;  // [n_vocab]
};

}  // namespace loopserve
