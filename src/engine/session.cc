#include <algorithm>
#include <numeric>

#include "src/base/clock.h"
#include "src/engine/sampler.h"
#include "src/engine/session_impl.h"
#include "src/engine/text_stream.h"
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

void ReportCoverage(std::vector<double> of_heads, int64_t steps, GenerationStats* stats) {
  const double sum = std::accumulate(of_heads.begin(), of_heads.end(), 0.0);
  const auto n = static_cast<double>(steps);
  stats->decode_coverage = sum / n / static_cast<double>(of_heads.size());
  const auto p10 = of_heads.begin() + static_cast<ptrdiff_t>(of_heads.size() / 10);
  std::nth_element(of_heads.begin(), p10, of_heads.end());
  stats->decode_coverage_p10 = *p10 / n;
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

Status SessionImpl::Append(std::span<const Token> tokens, const RunControl& control, const LogitsCallback& on_logits,
                           ForwardStats* stats) {
  std::vector<float> logits = std::move(logits_);
  logits_.clear();
  LS_RETURN_IF_ERROR(engine_->forward().Run(dialogue_, tokens, control, on_logits, &logits, stats));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  logits_ = std::move(logits);
  return Status::Ok();
}

Result<SyncStats> SessionImpl::Sync(std::span<const Token> prompt, const RunControl& control,
                                    const LogitsCallback& on_logits) {
  const auto start = Clock::now();
  if (prompt.empty()) return Status(StatusCode::kInvalidArgument, "the prompt is empty");
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

/// What Generate and Replay share: working sets from Begin on, one decode step after another, and the figures.
class SessionImpl::Answer {
 public:
  Answer(SessionImpl& session, const RunControl& control)
      : session_(session), control_(control), start_(Clock::now()), last_token_(start_) {}
  ~Answer() { session_.engine_->forward().EndAnswer(session_.dialogue_); }
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  Status Begin() {
    return session_.engine_->forward().BeginAnswer(session_.dialogue_, control_.measure_quality, &forward_);
  }

  /// A token was drawn.
  void CountToken(GenerationStats* stats) {
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

  /// Computes what follows a token.
  Status Step(Token token) {
    LS_RETURN_IF_ERROR(session_.Append({&token, 1}, {}, {}, &forward_));
    if (!control_.measure_quality || !session_.dialogue_.decodes_sparsely()) return Status::Ok();
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

  /// The last token was drawn.
  Status Finish() { return session_.engine_->forward().FinishAnswer(session_.dialogue_, &forward_); }

  void Report(GenerationStats* stats) const {
    if (stats->output_tokens > 1) {
      stats->tpot_ms = (stats->elapsed_ms - stats->first_token_ms) / static_cast<double>(stats->output_tokens - 1);
    }
    if (forward_.decode_keys_held > 0) {
      stats->decode_kv_fraction = forward_.decode_keys_read / forward_.decode_keys_held;
    }
    if (measured_steps_ > 0) ReportCoverage(coverage_, measured_steps_, stats);
    stats->linear_ms = forward_.linear_ms;
    stats->attention_ms = forward_.attention.attention_ms;
    stats->selection_ms = forward_.attention.selection_ms;
  }

 private:
  SessionImpl& session_;
  const RunControl& control_;
  Clock::time_point start_, last_token_;
  ForwardStats forward_;
  double off_the_clock_ms_ = 0;
  std::vector<double> coverage_;  // of each head, added up over steps
  int64_t measured_steps_ = 0;
};

Result<GenerationStats> SessionImpl::Generate(const SamplingParams& params, const TextCallback& on_text,
                                              const RunControl& control) {
  LS_RETURN_IF_ERROR(params.Validate());
  if (logits_.empty()) return Status(StatusCode::kInvalidArgument, "nothing was synced to go on from");
  Answer answer(*this, control);
  const Tokenizer& tokenizer = engine_->tokenizer();
  Sampler sampler(params);
  TextStream stream(params.stop);
  GenerationStats stats;
  std::vector<Token> history = tokens_;
  stats.stop_reason = StopReason::kMaxTokens;
  LS_RETURN_IF_ERROR(answer.Begin());
  // Returns false when the caller wants no more.
  const auto show = [&](const std::string& text) {
    stats.text += text;
    return text.empty() || !on_text || on_text(text);
  };
  while (params.max_tokens < 0 || stats.output_tokens < params.max_tokens) {
    if (IsCancelled(control)) {
      stats.stop_reason = StopReason::kCancelled;
      break;
    }
    const Token token = sampler.Sample(logits_, history);
    answer.CountToken(&stats);
    if (tokenizer.IsEndOfText(token) && !params.ignore_end_of_text) {
      stats.stop_reason = StopReason::kEndOfText;
      break;
    }
    history.push_back(token);
    const bool wanted = show(stream.Push(tokenizer.Piece(token)));
    if (stream.stopped() || !wanted) {
      stats.stop_reason = stream.stopped() ? StopReason::kStopString : StopReason::kCancelled;
      break;
    }
    if (stats.output_tokens == params.max_tokens) break;
    if (static_cast<int64_t>(tokens_.size()) >= engine_->info().context_tokens) {
      stats.stop_reason = StopReason::kContextFull;
      break;
    }
    LS_RETURN_IF_ERROR(answer.Step(token));
  }
  if (!stream.stopped()) show(stream.Finish());
  if (stream.stopped()) stats.stop_reason = StopReason::kStopString;
  LS_RETURN_IF_ERROR(answer.Finish());
  answer.Report(&stats);
  return stats;
}

Result<GenerationStats> SessionImpl::Replay(std::span<const Token> tokens, const RunControl& control,
                                            const LogitsCallback& on_logits) {
  LS_RETURN_IF_ERROR(Check(tokens, tokens_.size()));
  if (logits_.empty()) return Status(StatusCode::kInvalidArgument, "nothing was synced to go on from");
  Answer answer(*this, control);
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

Result<GenerationStats> Session::Replay(std::span<const Token> answer, const RunControl& control,
                                        const LogitsCallback& on_logits) {
  return impl_->Replay(answer, control, on_logits);
}

Session Session::Fork() const { return Session(impl_->Fork()); }
std::span<const Token> Session::tokens() const { return impl_->tokens(); }
std::span<const float> Session::logits() const { return impl_->logits(); }
size_t Session::kv_bytes() const { return impl_->cache().referenced_bytes(); }
size_t Session::exclusive_kv_bytes() const { return impl_->cache().exclusive_bytes(); }

}  // namespace loopserve
