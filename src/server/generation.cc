#include "src/server/generation.h"

#include <chrono>
#include <cstdio>
#include <random>
#include <utility>

namespace loopserve::server {
namespace {

constexpr auto kLookForClient = std::chrono::milliseconds(100);

double PerSecond(int64_t n, double ms) { return ms > 0 ? 1000.0 * static_cast<double>(n) / ms : 0; }
double PerToken(int64_t n, double ms) { return n > 0 ? ms / static_cast<double>(n) : 0; }

void SetIfKnown(Json* json, const char* name, const std::optional<double>& value) {
  if (value) (*json)[name] = *value;
}

}  // namespace

std::variant<ApiError, std::unique_ptr<Generation>> Generation::Start(Context& context, std::vector<JobSpec> specs) {
  std::unique_ptr<Generation> generation(new Generation);
  for (JobSpec& spec : specs) {
    spec.first_choice = generation->n_choices_;
    generation->n_choices_ += spec.n;
    if (auto error = context.scheduler->Submit(std::move(spec), generation->channel_)) return *error;
    ++generation->n_jobs_;
  }
  return generation;
}

std::optional<JobEvent> Generation::Next(std::chrono::milliseconds timeout) {
  for (;;) {
    std::optional<JobEvent> event = channel_->Wait(timeout);
    if (!event) return event;
    if (const auto* read = std::get_if<PromptRead>(&*event)) {
      totals_.prompt_tokens += read->stats.prompt_tokens;
      totals_.cached_tokens += read->stats.cached_tokens;
      totals_.reads.push_back(*read);
    } else if (const auto* delta = std::get_if<AnswerDelta>(&*event); delta != nullptr && delta->ended) {
      totals_.output_tokens += delta->stats.output_tokens;
      totals_.answers.push_back(delta->stats);
    } else if (std::holds_alternative<JobDone>(*event) && --n_jobs_ > 0) {
      continue;
    }
    return event;
  }
}

std::variant<ApiError, std::vector<ChoiceResult>> Collect(Generation& generation, const HttpRequest& http) {
  std::vector<ChoiceResult> choices(static_cast<size_t>(generation.n_choices()));
  auto last_look = Clock::now();
  for (;;) {
    std::optional<JobEvent> event = generation.Next(kLookForClient);
    if (Clock::now() - last_look >= kLookForClient) {  // tokens may come faster than that all the time
      if (http.is_gone()) return ApiError{499, "server_error", "client_gone", "the client closed the connection"};
      last_look = Clock::now();
    }
    if (!event) continue;
    if (const auto* failed = std::get_if<JobFailed>(&*event)) return failed->error;
    if (std::holds_alternative<JobDone>(*event)) return choices;
    auto* delta = std::get_if<AnswerDelta>(&*event);
    if (delta == nullptr) continue;
    ChoiceResult& choice = choices[static_cast<size_t>(delta->choice)];
    choice.text += delta->text;
    if (delta->ended) choice.stats = delta->stats;
    if (delta->logprob) choice.tokens.push_back(std::move(*delta));
  }
}

HttpReply StreamReply(const Context& context, std::unique_ptr<Generation> generation,
                      std::unique_ptr<StreamFormat> format) {
  struct State {
    std::unique_ptr<Generation> generation;
    std::unique_ptr<StreamFormat> format;
    std::chrono::milliseconds ping_interval;
    Clock::time_point last_sign = Clock::now();
    bool opened = false;
  };
  auto state = std::make_shared<State>();
  state->generation = std::move(generation);
  state->format = std::move(format);
  state->ping_interval = context.ping_interval;
  HttpReply reply;
  reply.content_type = "text/event-stream";
  reply.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  reply.stream = [state](std::string* out) {
    if (!std::exchange(state->opened, true)) {
      *out += ": accepted\n\n";  // so that headers leave before the prompt is read
      return true;
    }
    // Short waits: between them the connection is looked at.
    const std::optional<JobEvent> event = state->generation->Next(kLookForClient);
    if (!event) {
      if (Clock::now() - state->last_sign < state->ping_interval) return true;
      *out += ": ping\n\n";
    } else if (const auto* progress = std::get_if<PromptProgress>(&*event)) {
      state->format->Progress(*progress, out);
    } else if (const auto* read = std::get_if<PromptRead>(&*event)) {
      state->format->Read(*read, out);
    } else if (const auto* delta = std::get_if<AnswerDelta>(&*event)) {
      state->format->Delta(*delta, out);
    } else if (const auto* failed = std::get_if<JobFailed>(&*event)) {
      state->format->Failed(failed->error, out);
      return false;
    } else {
      state->format->Done(state->generation->totals(), out);
      return false;
    }
    if (!out->empty()) state->last_sign = Clock::now();
    return true;
  };
  return reply;
}

void AppendEvent(const Json& data, std::string* out) { *out += "data: " + ToText(data) + "\n\n"; }

void AppendNamedEvent(const std::string& name, const Json& data, std::string* out) {
  *out += "event: " + name + "\n";
  AppendEvent(data, out);
}

const char* FinishReason(StopReason reason) {
  return reason == StopReason::kMaxTokens || reason == StopReason::kContextFull ? "length" : "stop";
}

Json UsageJson(const Totals& totals) {
  Json usage;
  usage["prompt_tokens"] = totals.prompt_tokens;
  usage["completion_tokens"] = totals.output_tokens;
  usage["total_tokens"] = totals.prompt_tokens + totals.output_tokens;
  usage["prompt_tokens_details"] = {{"cached_tokens", totals.cached_tokens}};
  return usage;
}

Json TimingsJson(const Totals& totals) {
  Json timings;
  if (!totals.reads.empty()) {
    const SyncStats& read = totals.reads.front().stats;
    timings["cache_n"] = read.cached_tokens;
    timings["prompt_n"] = read.new_tokens;
    timings["prompt_ms"] = read.elapsed_ms;
    timings["prompt_per_token_ms"] = PerToken(read.new_tokens, read.elapsed_ms);
    timings["prompt_per_second"] = PerSecond(read.new_tokens, read.elapsed_ms);
    SetIfKnown(&timings, "prompt_density", read.prefill_density);
    SetIfKnown(&timings, "prompt_coverage", read.coverage_heldout);
  }
  if (!totals.answers.empty()) {
    const GenerationStats& answer = totals.answers.front();
    timings["predicted_n"] = answer.output_tokens;
    timings["predicted_ms"] = answer.elapsed_ms;
    timings["predicted_per_token_ms"] = PerToken(answer.output_tokens, answer.elapsed_ms);
    timings["predicted_per_second"] = PerSecond(answer.output_tokens, answer.elapsed_ms);
    SetIfKnown(&timings, "predicted_kv_fraction", answer.decode_kv_fraction);
    SetIfKnown(&timings, "predicted_coverage", answer.decode_coverage);
  }
  return timings;
}

Json SessionJson(const Totals& totals) {
  Json json;
  if (totals.reads.empty()) return json;
  const PromptRead& read = totals.reads.front();
  json["session_id"] = read.session_id;
  json["cached_tokens"] = read.stats.cached_tokens;
  json["new_tokens"] = read.stats.new_tokens;
  json["diverged_at"] = read.divergence ? Json(read.divergence->token) : Json(nullptr);
  json["divergence"] = read.divergence ? Json(read.divergence->reason) : Json(nullptr);
  return json;
}

std::string NewId(const std::string& prefix) {
  thread_local std::mt19937_64 generator{(uint64_t{std::random_device{}()} << 32) | std::random_device{}()};
  char digits[32];
  std::snprintf(digits, sizeof(digits), "%016llx%08x", static_cast<unsigned long long>(generator()),
                static_cast<unsigned>(generator()));
  return prefix + digits;
}

int64_t UnixSeconds() {
  using std::chrono::system_clock;
  return std::chrono::duration_cast<std::chrono::seconds>(system_clock::now().time_since_epoch()).count();
}

HttpReply ServeGeneration(Context& context, const HttpRequest& http, std::vector<JobSpec> specs, bool stream,
                          const ReplyForms& forms) {
  auto started = Generation::Start(context, std::move(specs));
  if (auto* error = std::get_if<ApiError>(&started)) return forms.error(*error);
  auto generation = std::get<std::unique_ptr<Generation>>(std::move(started));
  if (stream) {
    auto format = forms.stream(generation->n_choices());
    return StreamReply(context, std::move(generation), std::move(format));
  }
  auto collected = Collect(*generation, http);
  if (auto* error = std::get_if<ApiError>(&collected)) return forms.error(*error);
  return JsonReply(forms.whole(std::get<std::vector<ChoiceResult>>(collected), generation->totals()));
}

}  // namespace loopserve::server
