#include <algorithm>
#include <numeric>

#include "src/base/clock.h"
#include "src/base/scoped_flag.h"
#include "src/engine/answer_impl.h"
#include "src/engine/session_impl.h"
#include "src/engine/text_stream.h"
#include "src/model/dialogue_snapshot.h"
#include "src/model/evictor.h"
#include "src/session/prefix.h"

namespace loopserve {
namespace {

double Mean(const std::vector<float>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void ReportPrefill(const ForwardStats& forward, SyncStats* stats) {
  const PrefillFigures& figures = forward.attention;
  stats->attention_ms = figures.attention_ms;
  stats->selection_ms = figures.selection_ms;
  stats->prefill_density = figures.causal_pairs > 0 ? figures.computed_pairs / figures.causal_pairs : 1.0;
  if (figures.heldout_coverage.empty()) return;
  stats->coverage_heldout = Mean(figures.heldout_coverage);
  std::vector<float> error = figures.output_error;
  stats->output_error = Mean(error);
  const auto p90 = error.begin() + static_cast<ptrdiff_t>(error.size() * 9 / 10);
  std::nth_element(error.begin(), p90, error.end());
  stats->output_error_p90 = *p90;
  stats->floor_density = figures.floor_keys / figures.floor_causal_keys;
  stats->floor_error = Mean(figures.floor_error);
}

bool IsCancelled(const RunControl& control) {
  return control.cancel != nullptr && control.cancel->load(std::memory_order_relaxed);
}

}  // namespace

SessionImpl::SessionImpl(std::shared_ptr<EngineImpl> engine, const Policy& policy, int noted_queries)
    : engine_(std::move(engine)),
      dialogue_(KvCache(engine_->kv_layout(), engine_->kv_budget()), policy,
                RecentQueries(engine_->info().n_layers, noted_queries,
                              int64_t{engine_->info().n_heads} * engine_->info().head_dim)) {}

SessionImpl::SessionImpl(const SessionImpl& other)
    : engine_(other.engine_),
      dialogue_(other.dialogue_.Fork()),
      tokens_(other.tokens_),
      logits_(other.logits_),
      read_at_once_(other.read_at_once_) {}

std::unique_ptr<SessionImpl> SessionImpl::Fork() const { return std::unique_ptr<SessionImpl>(new SessionImpl(*this)); }

Status SessionImpl::Fill(const SnapshotReader& reader, std::vector<Token> tokens, std::vector<float> logits) {
  Status status = Check(tokens);
  // What is no user's mistake: a file named these tokens.
  if (status.code() == StatusCode::kInvalidArgument) status = Status(StatusCode::kCorruptData, status.message());
  LS_RETURN_IF_ERROR(status);
  LS_RETURN_IF_ERROR(ReadDialogue(reader, engine_->params(), &dialogue_));
  tokens_ = std::move(tokens);
  logits_ = std::move(logits);
  return Status::Ok();
}

Status SessionImpl::Check(std::span<const Token> prompt, size_t before) const {
  const ModelInfo& model = engine_->info();
  const size_t all = before + prompt.size();
  if (static_cast<int64_t>(all) > model.context_tokens) {
    return Status(StatusCode::kContextLength, "the dialogue has " + std::to_string(all) +
                                                  " tokens, but the context holds " +
                                                  std::to_string(model.context_tokens));
  }
  for (const Token token : prompt) {
    if (token < 0 || token >= model.n_vocab) {
      return Status(StatusCode::kInvalidArgument, "the token " + std::to_string(token) +
                                                      " is outside the vocabulary of " + std::to_string(model.n_vocab));
    }
  }
  return Status::Ok();
}

void SessionImpl::Rewind(int64_t n_tokens, int64_t n_same) {
  if (n_tokens == static_cast<int64_t>(tokens_.size())) return;
  dialogue_.Truncate(n_tokens, n_same);
  tokens_.resize(static_cast<size_t>(n_tokens));
  logits_.clear();
  read_at_once_ = 0;
}

Status SessionImpl::CheckCanAnswer() const {
  LS_RETURN_IF_ERROR(CheckIdle());
  if (logits_.empty()) return Status(StatusCode::kInvalidArgument, "nothing was synced to go on from");
  return Status::Ok();
}

Status SessionImpl::CheckIdle() const {
  if (computing_) return Status(StatusCode::kInvalidArgument, "the session is reading a prompt");
  return Status::Ok();
}

Status SessionImpl::Append(std::span<const Token> tokens, const RunControl& control, const LogitsCallback& on_logits,
                           ForwardStats* stats) {
  std::vector<float> logits = std::move(logits_);
  logits_.clear();
  const ScopedFlag computing(computing_);
  LS_RETURN_IF_ERROR(engine_->forward().Run(dialogue_, tokens, control, on_logits, &logits, stats));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  logits_ = std::move(logits);
  return Status::Ok();
}

Result<SyncStats> SessionImpl::Sync(std::span<const Token> prompt, const RunControl& control,
                                    const LogitsCallback& on_logits) {
  const auto start = Clock::now();
  if (prompt.empty()) return Status(StatusCode::kInvalidArgument, "the prompt is empty");
  LS_RETURN_IF_ERROR(CheckIdle());
  LS_RETURN_IF_ERROR(Check(prompt));
  const SyncPlan plan = PlanSync(tokens_, prompt, !logits_.empty());
  Rewind(plan.keep_tokens, std::ranges::mismatch(tokens_, prompt).in1 - tokens_.begin());
  SyncStats stats;
  stats.kind = plan.kind;
  stats.prompt_tokens = static_cast<int64_t>(prompt.size());
  stats.cached_tokens = plan.keep_tokens;
  stats.new_tokens = plan.new_tokens;
  if (plan.new_tokens > 0) {
    ForwardStats forward;
    LS_RETURN_IF_ERROR(Append(prompt.subspan(static_cast<size_t>(plan.keep_tokens)), control, on_logits, &forward));
    if (Status status = engine_->forward().EndPrompt(dialogue_, plan.new_tokens, &forward); !status.ok()) {
      Rewind(plan.keep_tokens, plan.keep_tokens);
      return status;
    }
    if (plan.keep_tokens == 0) read_at_once_ = prompt.size();
    stats.linear_ms = forward.linear_ms;
    ReportPrefill(forward, &stats);
  }
  stats.elapsed_ms = MillisecondsSince(start);
  return stats;
}

Result<std::unique_ptr<AnswerImpl>> SessionImpl::BeginAnswer(const SamplingParams& params, const RunControl& control) {
  LS_RETURN_IF_ERROR(params.Validate());
  LS_RETURN_IF_ERROR(CheckCanAnswer());
  auto answer = std::make_unique<AnswerImpl>(*this, params, control);
  LS_RETURN_IF_ERROR(answer->Begin());
  return answer;
}

Result<GenerationStats> SessionImpl::Generate(const SamplingParams& params, const TextCallback& on_text,
                                              const RunControl& control) {
  LS_ASSIGN_OR_RETURN(const std::unique_ptr<AnswerImpl> answer, BeginAnswer(params, control));
  const auto show = [&](const AnswerStep& step) { return step.text.empty() || !on_text || on_text(step.text); };
  for (bool ended = false; !ended;) {
    LS_ASSIGN_OR_RETURN(const AnswerStep step, answer->Next());
    ended = step.ended;
    if (!show(step) && !ended) {
      LS_ASSIGN_OR_RETURN(const AnswerStep last, answer->Stop());
      show(last);
      ended = true;
    }
  }
  return answer->stats();
}

Result<GenerationStats> SessionImpl::Replay(std::span<const Token> tokens, const RunControl& control,
                                            const LogitsCallback& on_logits) {
  LS_RETURN_IF_ERROR(Check(tokens, tokens_.size()));
  LS_RETURN_IF_ERROR(CheckCanAnswer());
  AnswerSteps answer(*this, control.measure_quality);
  GenerationStats stats;
  stats.stop_reason = StopReason::kMaxTokens;
  LS_RETURN_IF_ERROR(answer.Begin());
  TextStream stream({});
  for (const Token token : tokens) {
    if (IsCancelled(control)) return Status(StatusCode::kCancelled, "cancelled while an answer was computed");
    if (on_logits) on_logits(static_cast<int64_t>(tokens_.size()), logits_);
    answer.CountToken(&stats);
    stats.text += stream.Push(engine_->tokenizer().Piece(token));
    LS_RETURN_IF_ERROR(answer.Step(token));
  }
  stats.text += stream.Finish();
  LS_RETURN_IF_ERROR(answer.Finish());
  answer.Report(&stats);
  return stats;
}

Session::Session(std::unique_ptr<SessionImpl> impl) : impl_(std::move(impl)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Result<SyncStats> Session::Sync(std::span<const Token> prompt, const RunControl& control,
                                const LogitsCallback& on_logits) {
  return impl_->Sync(prompt, control, on_logits);
}

Result<GenerationStats> Session::Generate(const SamplingParams& params, const TextCallback& on_text,
                                          const RunControl& control) {
  return impl_->Generate(params, on_text, control);
}

Result<Answer> Session::BeginAnswer(const SamplingParams& params, const RunControl& control) {
  LS_ASSIGN_OR_RETURN(std::unique_ptr<AnswerImpl> answer, impl_->BeginAnswer(params, control));
  return Answer(std::move(answer));
}

Result<GenerationStats> Session::Replay(std::span<const Token> answer, const RunControl& control,
                                        const LogitsCallback& on_logits) {
  return impl_->Replay(answer, control, on_logits);
}

Session Session::Fork() const { return Session(impl_->Fork()); }
const Policy& Session::policy() const { return impl_->policy(); }
std::span<const Token> Session::tokens() const { return impl_->tokens(); }
std::span<const float> Session::logits() const { return impl_->logits(); }
size_t Session::kv_bytes() const { return impl_->dialogue().kv_bytes(); }
size_t Session::exclusive_kv_bytes() const { return impl_->dialogue().exclusive_kv_bytes(); }

}  // namespace loopserve
