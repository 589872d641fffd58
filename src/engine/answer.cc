#include <algorithm>
#include <numeric>
#include <utility>

#include "src/engine/answer_impl.h"

namespace loopserve {
namespace {

void ReportCoverage(std::vector<double> of_heads, int64_t steps, GenerationStats* stats) {
  const double sum = std::accumulate(of_heads.begin(), of_heads.end(), 0.0);
  const auto n = static_cast<double>(steps);
  stats->decode_coverage = sum / n / static_cast<double>(of_heads.size());
  const auto p10 = of_heads.begin() + static_cast<ptrdiff_t>(of_heads.size() / 10);
  std::nth_element(of_heads.begin(), p10, of_heads.end());
  stats->decode_coverage_p10 = *p10 / n;
}

}  // namespace

AnswerSteps::~AnswerSteps() { session_.engine_->forward().EndAnswer(session_.dialogue_); }

Status AnswerSteps::Begin() { return session_.engine_->forward().BeginAnswer(session_.dialogue_, measure_, &forward_); }

void AnswerSteps::CountToken(GenerationStats* stats) {
  const auto now = Clock::now();
  ++stats->output_tokens;
  stats->elapsed_ms = MillisecondsSince(start_) - off_the_clock_ms_;
  if (stats->output_tokens == 1) {
    stats->first_token_ms = stats->elapsed_ms;
  } else {
    stats->itl_ms.push_back(static_cast<float>(ToMilliseconds(now - last_token_)));
  }
  last_token_ = now;
}

Status AnswerSteps::Step(Token token) {
  LS_RETURN_IF_ERROR(session_.Append({&token, 1}, {}, {}, &forward_));
  if (!measure_ || !session_.dialogue_.decodes_sparsely()) return Status::Ok();
  const auto measure_start = Clock::now();
  LS_ASSIGN_OR_RETURN(const std::vector<double> shares,
                      session_.engine_->forward().MeasureDecodeCoverage(session_.dialogue_));
  if (shares.empty()) return Status::Ok();  // no layer is sparse, or none yet: an answer grows
  coverage_.resize(shares.size());
  for (size_t i = 0; i < shares.size(); ++i) coverage_[i] += shares[i];
  ++measured_steps_;
  const auto spent = Clock::now() - measure_start;
  off_the_clock_ms_ += ToMilliseconds(spent);
  last_token_ += spent;
  return Status::Ok();
}

Status AnswerSteps::Finish() { return session_.engine_->forward().FinishAnswer(session_.dialogue_, &forward_); }

void AnswerSteps::Report(GenerationStats* stats) const {
  if (stats->output_tokens > 1) {
    stats->tpot_ms = (stats->elapsed_ms - stats->first_token_ms) / static_cast<double>(stats->output_tokens - 1);
  }
  if (forward_.decode_keys_held > 0) {
    stats->decode_kv_fraction = forward_.decode_keys_read / forward_.decode_keys_held;
  }
  stats->reselections = forward_.decode_choices;
  if (measured_steps_ > 0) ReportCoverage(coverage_, measured_steps_, stats);
  stats->linear_ms = forward_.linear_ms;
  stats->attention_ms = forward_.attention.attention_ms;
  stats->selection_ms = forward_.attention.selection_ms;
}

AnswerImpl::AnswerImpl(SessionImpl& session, const SamplingParams& params, const RunControl& control)
    : session_(session),
      params_(params),
      cancel_(control.cancel),
      steps_(session, control.measure_quality),
      sampler_(params),
      stream_(params.stop),
      history_(session.tokens().begin(), session.tokens().end()) {
  stats_.stop_reason = StopReason::kMaxTokens;
}

std::optional<Token> AnswerImpl::PendingToken() const {
  // Of one that only has to be closed nothing is computed.
  return ended_ || last_ || pending_ < 0 ? std::nullopt : std::optional(pending_);
}

Status AnswerImpl::Begin() {
  if (!params_.form.grammar.empty()) {
    LS_ASSIGN_OR_RETURN(constraint_, AnswerConstraint::Create(session_.engine().tokenizer(), params_.form));
  }
  return steps_.Begin();
}

Result<AnswerStep> AnswerImpl::Next() {
  if (const std::optional<Token> token = PendingToken()) LS_RETURN_IF_ERROR(steps_.Step(*token));
  return Advance();
}

Result<AnswerStep> AnswerImpl::Advance() {
  if (ended_) return Status(StatusCode::kInvalidArgument, "the answer has ended");
  if (last_) return Close();
  if (params_.max_tokens == 0) return End({}, StopReason::kMaxTokens);
  pending_ = -1;
  if (cancel_ != nullptr && cancel_->load(std::memory_order_relaxed)) return End({}, StopReason::kCancelled);
  return Draw();
}

Result<AnswerStep> AnswerImpl::Draw() {
  AnswerStep step;
  if (constraint_ != nullptr) {
    LS_ASSIGN_OR_RETURN(step.token, constraint_->Draw(sampler_, session_.logits(), history_));
  } else {
    step.token = sampler_.Sample(session_.logits(), history_);
  }
  steps_.CountToken(&stats_);
  const Tokenizer& tokenizer = session_.engine().tokenizer();
  const bool in_form = constraint_ != nullptr && constraint_->in_force();
  if (tokenizer.IsEndOfText(step.token) && (in_form || !params_.ignore_end_of_text)) {
    return End(step, StopReason::kEndOfText);
  }
  history_.push_back(step.token);
  step.text = stream_.Push(tokenizer.Piece(step.token, in_form));
  if (stream_.stopped()) return End(step, StopReason::kStopString);
  if (in_form && constraint_->must_end()) return End(step, StopReason::kEndOfText);
  if (stats_.output_tokens == params_.max_tokens) return End(step, StopReason::kMaxTokens);
  if (static_cast<int64_t>(session_.tokens().size()) >= session_.engine().info().context_tokens) {
    return End(step, StopReason::kContextFull);
  }
  pending_ = step.token;
  stats_.text += step.text;
  return step;
}

Result<AnswerStep> AnswerImpl::Stop() {
  if (ended_) return AnswerStep();
  if (last_) return Close();
  return End({}, StopReason::kCancelled);
}

Result<AnswerStep> AnswerImpl::End(AnswerStep step, StopReason reason) {
  if (!stream_.stopped()) step.text += stream_.Finish();
  stats_.stop_reason = stream_.stopped() ? StopReason::kStopString : reason;
  stats_.text += step.text;
  step.ended = true;
  last_ = std::move(step);
  return Close();
}

Result<AnswerStep> AnswerImpl::Close() {
  LS_RETURN_IF_ERROR(steps_.Finish());
  ended_ = true;
  AnswerStep last = std::move(*last_);
  last_.reset();
  return last;
}

GenerationStats AnswerImpl::stats() const {
  GenerationStats stats = stats_;
  steps_.Report(&stats);
  return stats;
}

Answer::Answer(std::unique_ptr<AnswerImpl> impl) : impl_(std::move(impl)) {}
Answer::~Answer() = default;
Answer::Answer(Answer&&) noexcept = default;
Answer& Answer::operator=(Answer&&) noexcept = default;
Result<AnswerStep> Answer::Next() { return impl_->Next(); }
Result<AnswerStep> Answer::Stop() { return impl_->Stop(); }
GenerationStats Answer::stats() const { return impl_->stats(); }

}  // namespace loopserve
