#include <algorithm>
#include <chrono>

#include "src/engine/sampler.h"
#include "src/engine/session_impl.h"
#include "src/engine/text_stream.h"
#include "src/session/prefix.h"

namespace loopserve {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

bool IsCancelled(const RunControl& control) {
  return control.cancel != nullptr && control.cancel->load(std::memory_order_relaxed);
}

}  // namespace

SessionImpl::SessionImpl(std::shared_ptr<EngineImpl> engine, Policy policy)
    : engine_(std::move(engine)), policy_(std::move(policy)), cache_(engine_->kv_layout(), engine_->kv_budget()) {}

SessionImpl::SessionImpl(const SessionImpl& other)
    : engine_(other.engine_),
      policy_(other.policy_),
      cache_(other.cache_.Fork()),
      tokens_(other.tokens_),
      logits_(other.logits_) {}

std::unique_ptr<SessionImpl> SessionImpl::Fork() const { return std::unique_ptr<SessionImpl>(new SessionImpl(*this)); }

Status SessionImpl::Check(std::span<const Token> prompt) const {
  const ModelInfo& model = engine_->info();
  if (prompt.empty()) return Status(StatusCode::kInvalidArgument, "the prompt is empty");
  if (static_cast<int64_t>(prompt.size()) > model.context_tokens) {
    return Status(StatusCode::kContextLength, "the dialogue has " + std::to_string(prompt.size()) +
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

void SessionImpl::Rewind(int64_t n_tokens) {
  if (n_tokens == static_cast<int64_t>(tokens_.size())) return;
  cache_.Truncate(n_tokens);
  tokens_.resize(static_cast<size_t>(n_tokens));
  logits_.clear();
}

Status SessionImpl::Append(std::span<const Token> tokens, const RunControl& control, const LogitsCallback& on_logits,
                           ForwardStats* stats) {
  std::vector<float> logits = std::move(logits_);
  logits_.clear();
  LS_RETURN_IF_ERROR(engine_->forward().Run(cache_, tokens, control, on_logits, &logits, stats));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  logits_ = std::move(logits);
  return Status::Ok();
}

Result<SyncStats> SessionImpl::Sync(std::span<const Token> prompt, const RunControl& control,
                                    const LogitsCallback& on_logits) {
  const auto start = Clock::now();
  LS_RETURN_IF_ERROR(Check(prompt));
  const SyncPlan plan = PlanSync(tokens_, prompt, !logits_.empty());
  Rewind(plan.keep_tokens);
  SyncStats stats;
  stats.kind = plan.kind;
  stats.prompt_tokens = static_cast<int64_t>(prompt.size());
  stats.cached_tokens = plan.keep_tokens;
  stats.new_tokens = plan.new_tokens;
  if (plan.new_tokens > 0) {
    ForwardStats forward;
    LS_RETURN_IF_ERROR(Append(prompt.subspan(static_cast<size_t>(plan.keep_tokens)), control, on_logits, &forward));
    stats.linear_ms = forward.linear_ms;
    stats.attention_ms = forward.attention_ms;
    stats.prefill_density = 1.0;  // dense: every causal pair
  }
  stats.elapsed_ms = MillisecondsSince(start);
  return stats;
}

Result<GenerationStats> SessionImpl::Generate(const SamplingParams& params, const TextCallback& on_text,
                                              const RunControl& control) {
  LS_RETURN_IF_ERROR(params.Validate());
  if (logits_.empty()) return Status(StatusCode::kInvalidArgument, "nothing was synced to go on from");
  const auto start = Clock::now();
  const Tokenizer& tokenizer = engine_->tokenizer();
  Sampler sampler(params);
  TextStream stream(params.stop);
  GenerationStats stats;
  ForwardStats forward;
  std::vector<Token> history = tokens_;
  stats.stop_reason = StopReason::kMaxTokens;
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
    ++stats.output_tokens;
    stats.elapsed_ms = MillisecondsSince(start);
    if (stats.output_tokens == 1) stats.first_token_ms = stats.elapsed_ms;
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
    LS_RETURN_IF_ERROR(Append({&token, 1}, {}, {}, &forward));
    stats.decode_kv_fraction = 1.0;  // dense: every step reads all that is held
  }
  if (!stream.stopped()) show(stream.Finish());
  if (stream.stopped()) stats.stop_reason = StopReason::kStopString;
  if (stats.output_tokens > 1) {
    stats.tpot_ms = (stats.elapsed_ms - stats.first_token_ms) / static_cast<double>(stats.output_tokens - 1);
  }
  stats.linear_ms = forward.linear_ms;
  stats.attention_ms = forward.attention_ms;
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

Session Session::Fork() const { return Session(impl_->Fork()); }
std::span<const Token> Session::tokens() const { return impl_->tokens(); }
std::span<const float> Session::logits() const { return impl_->logits(); }
size_t Session::kv_bytes() const { return impl_->cache().referenced_bytes(); }
size_t Session::exclusive_kv_bytes() const { return impl_->cache().exclusive_bytes(); }

}  // namespace loopserve
