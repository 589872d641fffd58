// The HTTP thread's side of running answers: hands jobs to the scheduler, waits for what they bring, and either
// collects it or streams it in an API's own form. Thread rule: one owner.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "src/server/context.h"
#include "src/server/http_types.h"
#include "src/server/job.h"

namespace loopserve::server {

/// What the answers to one request were, added up.
struct Totals {
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  std::vector<PromptRead> reads;         ///< of each prompt
  std::vector<GenerationStats> answers;  ///< in the order in which they ended
};

struct ChoiceResult {
  std::string text;
  std::vector<AnswerDelta> tokens;  ///< each token drawn, where logprobs were asked for
  GenerationStats stats;
};

class Generation {
 public:
  /// One job for each prompt of `specs`.
  static std::variant<ApiError, std::unique_ptr<Generation>> Start(Context& context, std::vector<JobSpec> specs);
  /// Cancels what still runs.
  ~Generation() { channel_->Cancel(); }

  /// The next event; nothing after `timeout`. JobDone and JobFailed come once, when all is over.
  std::optional<JobEvent> Next(std::chrono::milliseconds timeout);
  const Totals& totals() const { return totals_; }
  int n_choices() const { return n_choices_; }

 private:
  Generation() = default;
  const std::shared_ptr<JobChannel> channel_ = std::make_shared<JobChannel>();
  size_t n_jobs_ = 0;
  int n_choices_ = 0;
  Totals totals_;
};

/// Waits for all answers; an error too where the client has gone away.
std::variant<ApiError, std::vector<ChoiceResult>> Collect(Generation& generation, const HttpRequest& http);

/// How an API writes the events of a stream. Each appends whole server-sent events to *out.
class StreamFormat {
 public:
  virtual ~StreamFormat() = default;
  virtual void Progress(const PromptProgress&, std::string*) {}
  virtual void Read(const PromptRead&, std::string*) {}
  virtual void Delta(const AnswerDelta& delta, std::string* out) = 0;
  virtual void Failed(const ApiError& error, std::string* out) = 0;
  virtual void Done(const Totals& totals, std::string* out) = 0;
};

/// A text/event-stream: headers at once, comments as signs of life, then what `format` makes of the events.
HttpReply StreamReply(const Context& context, std::unique_ptr<Generation> generation,
                      std::unique_ptr<StreamFormat> format);

/// How an API writes its replies.
struct ReplyForms {
  std::function<std::unique_ptr<StreamFormat>(int n_choices)> stream;
  std::function<Json(std::span<const ChoiceResult> choices, const Totals& totals)> whole;
  HttpReply (*error)(const ApiError&) = nullptr;
};

/// What every route of answers does once its request is parsed: starts them, and replies as a stream or when all are
/// there.
HttpReply ServeGeneration(Context& context, const HttpRequest& http, std::vector<JobSpec> specs, bool stream,
                          const ReplyForms& forms);

/// "data: JSON\n\n", and with the event's name before it.
void AppendEvent(const Json& data, std::string* out);
void AppendNamedEvent(const std::string& name, const Json& data, std::string* out);

/// "stop" or "length".
const char* FinishReason(StopReason reason);
/// In the form of OpenAI's completions.
Json UsageJson(const Totals& totals);
/// As llama-server's, of the first prompt and answer, with density and coverage.
Json TimingsJson(const Totals& totals);
/// What became of the dialogue: {"session_id", "cached_tokens", "diverged_at", "divergence", ...}.
Json SessionJson(const Totals& totals);
/// "chatcmpl-" and the like, with random digits.
std::string NewId(const std::string& prefix);
int64_t UnixSeconds();

}  // namespace loopserve::server
