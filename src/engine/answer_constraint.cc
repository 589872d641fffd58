#include "src/engine/answer_constraint.h"

#include <algorithm>
#include <limits>
#include <optional>

namespace loopserve {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
/// Tokens that complete a trigger in a way which the grammar refuses; more than these in a row are no accident.
constexpr int kMaxRefusedTriggers = 256;

Status DeadEnd() {
  return Status(StatusCode::kUnsupported,
                "no token of the model's vocabulary can go on within the form that was asked for");
}

}  // namespace

Result<std::unique_ptr<AnswerConstraint>> AnswerConstraint::Create(const Tokenizer& tokenizer, const AnswerForm& form) {
  std::unique_ptr<AnswerConstraint> constraint(new AnswerConstraint(tokenizer, form));
  LS_ASSIGN_OR_RETURN(constraint->matcher_, tokenizer.NewMatcher(form.grammar, form.control_texts));
  constraint->in_force_ = form.trigger.empty();
  return constraint;
}

Result<Token> AnswerConstraint::Draw(Sampler& sampler, std::span<const float> logits, std::span<const Token> recent) {
  return in_force_ ? DrawInForce(sampler, logits, recent) : DrawBefore(sampler, logits, recent);
}

Result<Token> AnswerConstraint::DrawInForce(Sampler& sampler, std::span<const float> logits,
                                            std::span<const Token> recent) {
  Token token = sampler.Sample(logits, recent);
  if (!matcher_->Allows(token)) {
    masked_.assign(logits.begin(), logits.end());
    if (matcher_->Mask(masked_) == 0) return DeadEnd();
    token = sampler.Sample(masked_, recent);
    // Where no allowed token has a finite logit the sampler falls back to one that is not allowed.
    if (!matcher_->Allows(token)) return DeadEnd();
  }
  LS_RETURN_IF_ERROR(matcher_->Accept(token));
  return token;
}

std::optional<std::string> AnswerConstraint::FindTrigger(const std::string& text) const {
  const size_t at =
      form_.trigger_at_start ? (text.starts_with(form_.trigger) ? 0 : std::string::npos) : text.find(form_.trigger);
  return at == std::string::npos ? std::nullopt : std::optional(text.substr(at));
}

Result<Token> AnswerConstraint::DrawBefore(Sampler& sampler, std::span<const float> logits,
                                           std::span<const Token> recent) {
  std::span<const float> from = logits;
  for (int i = 0; i < kMaxRefusedTriggers; ++i) {
    const Token token = sampler.Sample(from, recent);
    if (tokenizer_.IsEndOfText(token)) return token;
    const std::string text = text_ + tokenizer_.Piece(token, true);
    const std::optional<std::string> begun = FindTrigger(text);
    if (!begun) {
      // At the start alone: as long as it can still become the trigger. Elsewhere: what may be part of it.
      const size_t keep = form_.trigger_at_start ? form_.trigger.size() : form_.trigger.size() - 1;
      text_ = form_.trigger_at_start ? text.substr(0, keep) : text.substr(text.size() - std::min(text.size(), keep));
      return token;
    }
    const Status status = matcher_->AcceptText(*begun);
    if (status.ok()) {
      in_force_ = true;
      return token;
    }
    matcher_->Reset();
    if (from.data() != masked_.data()) masked_.assign(logits.begin(), logits.end());
    masked_[static_cast<size_t>(token)] = kNever;
    from = masked_;
  }
  return DeadEnd();
}

}  // namespace loopserve
