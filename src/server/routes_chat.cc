// /v1/chat/completions in OpenAI's form.
#include <utility>

#include "src/server/chat_messages.h"
#include "src/server/generation.h"
#include "src/server/generation_request.h"
#include "src/server/logprobs.h"
#include "src/server/prompt.h"
#include "src/server/routes.h"

namespace loopserve::server {
namespace {

struct ChatRequest {
  GenerationRequest generation;
  std::vector<JobSpec> specs;
};

const std::vector<std::string>& UnsupportedFields() {
  static const std::vector<std::string> fields = {"functions",
                                                  "function_call",
                                                  "logit_bias",
                                                  "audio",
                                                  "prediction",
                                                  "web_search_options",
                                                  "grammar",
                                                  "guided_json",
                                                  "guided_regex",
                                                  "guided_choice",
                                                  "guided_grammar",
                                                  "structured_outputs",
                                                  "echo",
                                                  "best_of",
                                                  "prompt_logprobs",
                                                  "use_beam_search",
                                                  "chat_template",
                                                  "chat_template_kwargs",
                                                  "continue_final_message",
                                                  "allowed_token_ids",
                                                  "bad_words"};
  return fields;
}

Status RefuseModes(const JsonIn& body) {
  const Fields fields(body);
  LS_RETURN_IF_ERROR(RefuseFields(body, UnsupportedFields()));
  const JsonIn* choice = fields.Find("tool_choice");
  const bool no_tools = choice != nullptr && *choice == "none";
  if (!no_tools) LS_RETURN_IF_ERROR(RefuseFields(body, {"tools"}));
  LS_ASSIGN_OR_RETURN(const JsonIn* format, fields.Object("response_format"));
  if (format != nullptr) {
    LS_ASSIGN_OR_RETURN(const auto type, Fields(*format, "response_format.").Text("type"));
    if (type && *type != "text") {
      return Status(StatusCode::kUnsupported, "response_format.type '" + *type + "' is not supported");
    }
  }
  LS_ASSIGN_OR_RETURN(const JsonIn* modalities, fields.List("modalities", 16));
  if (modalities != nullptr && (modalities->size() != 1 || (*modalities)[0] != "text")) {
    return Status(StatusCode::kUnsupported, "modalities other than 'text' are not supported");
  }
  return Status::Ok();
}

Status ParseLogprobs(const JsonIn& body, int* top_logprobs) {
  const Fields fields(body);
  LS_ASSIGN_OR_RETURN(const std::optional<bool> wanted, fields.Bool("logprobs"));
  LS_ASSIGN_OR_RETURN(const std::optional<int64_t> top, fields.Int("top_logprobs", 0, kMaxTopLogprobs));
  if (top.value_or(0) > 0 && !wanted.value_or(false)) {
    return Status(StatusCode::kInvalidArgument, "top_logprobs needs logprobs to be true");
  }
  *top_logprobs = wanted.value_or(false) ? static_cast<int>(top.value_or(0)) : -1;
  return Status::Ok();
}

Result<ChatRequest> ParseChat(const Context& context, const HttpRequest& http) {
  LS_ASSIGN_OR_RETURN(const JsonIn body, ParseBody(http.body));
  LS_RETURN_IF_ERROR(RefuseModes(body));
  ChatRequest request;
  LS_ASSIGN_OR_RETURN(request.generation, ParseGeneration(context, http, body));
  JobSpec& spec = request.generation.spec;
  LS_RETURN_IF_ERROR(ParseMaxTokens(body, {"max_completion_tokens", "max_tokens", "n_predict"}, &spec.sampling));
  LS_RETURN_IF_ERROR(ParseLogprobs(body, &spec.top_logprobs));
  LS_ASSIGN_OR_RETURN(const std::vector<ChatMessage> messages, ParseMessages(body));
  LS_ASSIGN_OR_RETURN(const auto add_prompt, Fields(body).Bool("add_generation_prompt"));
  LS_ASSIGN_OR_RETURN(spec.prompt, RenderPrompt(context, messages, add_prompt.value_or(true), spec));
  LS_RETURN_IF_ERROR(CheckLength(context, spec.prompt.size(), spec.sampling));
  request.specs.push_back(spec);
  return request;
}

Json LogprobEntry(const Engine& engine, const TokenLogprob& token) {
  const std::string text = engine.Detokenize({&token.token, 1}, true);
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  return {{"token", text}, {"logprob", token.logprob}, {"bytes", std::move(bytes)}};
}

Json LogprobsJson(const Engine& engine, std::span<const AnswerDelta> tokens) {
  Json content = Json::array();
  for (const AnswerDelta& delta : tokens) {
    Json entry = LogprobEntry(engine, *delta.logprob);
    Json top = Json::array();
    for (const TokenLogprob& token : delta.top) top.push_back(LogprobEntry(engine, token));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json Head(const std::string& id, const char* object, int64_t created, const std::string& model) {
  return {{"id", id}, {"object", object}, {"created", created}, {"model", model}, {"system_fingerprint", "loopserve"}};
}

class ChatStream : public StreamFormat {
 public:
  ChatStream(const Context& context, const GenerationRequest& request, int n_choices)
      : engine_(context.engine), request_(request), roles_(static_cast<size_t>(n_choices), false) {}

  void Progress(const PromptProgress& progress, std::string* out) override {
    const auto done =
        static_cast<int64_t>(progress.share * static_cast<double>(progress.total_tokens - progress.cached_tokens));
    if (!request_.return_progress) {
      *out += ": progress " + std::to_string(progress.cached_tokens + done) + " of " +
              std::to_string(progress.total_tokens) + " tokens\n\n";
      return;
    }
    Json chunk = Chunk(Json::array());
    chunk["prompt_progress"] = {{"total", progress.total_tokens},
                                {"cache", progress.cached_tokens},
                                {"processed", progress.cached_tokens + done},
                                {"time_ms", progress.elapsed_ms}};
    AppendEvent(chunk, out);
  }

  void Delta(const AnswerDelta& delta, std::string* out) override {
    const auto choice = static_cast<size_t>(delta.choice);
    if (!roles_[choice]) {
      roles_[choice] = true;
      AppendEvent(Chunk(Json::array({Choice(delta.choice, {{"role", "assistant"}, {"content", ""}})})), out);
    }
    if (!delta.text.empty() || delta.logprob) {
      Json entry = Choice(delta.choice, {{"content", delta.text}});
      if (delta.logprob) entry["logprobs"] = LogprobsJson(*engine_, {&delta, 1});
      AppendEvent(Chunk(Json::array({std::move(entry)})), out);
    }
    if (!delta.ended) return;
    Json entry = Choice(delta.choice, Json::object());
    entry["finish_reason"] = FinishReason(delta.stats.stop_reason);
    AppendEvent(Chunk(Json::array({std::move(entry)})), out);
  }

  void Failed(const ApiError& error, std::string* out) override { AppendEvent(ToJson(error), out); }

  void Done(const Totals& totals, std::string* out) override {
    // Without include_usage clients do not expect a chunk that has no choices.
    if (request_.include_usage) {
      Json chunk = Chunk(Json::array());
      chunk["usage"] = UsageJson(totals);
      chunk["timings"] = TimingsJson(totals);
      chunk["loopserve"] = SessionJson(totals);
      AppendEvent(chunk, out);
    }
    *out += "data: [DONE]\n\n";
  }

 private:
  Json Chunk(Json choices) const {
    Json chunk = Head(id_, "chat.completion.chunk", created_, request_.model);
    chunk["choices"] = std::move(choices);
    return chunk;
  }
  static Json Choice(int index, Json delta) {
    return {{"index", index}, {"delta", std::move(delta)}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
  }

  const std::shared_ptr<Engine> engine_;
  const GenerationRequest request_;
  const std::string id_ = NewId("chatcmpl-");
  const int64_t created_ = UnixSeconds();
  std::vector<bool> roles_;  ///< whether the choice's first chunk was written
};

Json ChatJson(const Context& context, const GenerationRequest& request, std::span<const ChoiceResult> choices,
              const Totals& totals) {
  Json json = Head(NewId("chatcmpl-"), "chat.completion", UnixSeconds(), request.model);
  Json list = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    Json choice;
    choice["index"] = i;
    choice["message"] = {{"role", "assistant"}, {"content", choices[i].text}, {"refusal", nullptr}};
    choice["logprobs"] =
        request.spec.top_logprobs >= 0 ? LogprobsJson(*context.engine, choices[i].tokens) : Json(nullptr);
    choice["finish_reason"] = FinishReason(choices[i].stats.stop_reason);
    list.push_back(std::move(choice));
  }
  json["choices"] = std::move(list);
  json["usage"] = UsageJson(totals);
  json["timings"] = TimingsJson(totals);
  json["loopserve"] = SessionJson(totals);
  return json;
}

HttpReply ServeChat(Context& context, const HttpRequest& http) {
  Result<ChatRequest> request = ParseChat(context, http);
  if (!request.ok()) return ErrorReply(request.status());
  const GenerationRequest& generation = request->generation;
  return ServeGeneration(
      context, http, std::move(request->specs), generation.stream,
      {[&](int n) { return std::make_unique<ChatStream>(context, generation, n); },
       [&](auto choices, const Totals& totals) { return ChatJson(context, generation, choices, totals); }, ErrorReply});
}

}  // namespace

void AddChatRoutes(Context& context, std::vector<Route>* routes) {
  for (const char* path : {"/v1/chat/completions", "/chat/completions"}) {
    routes->push_back({"POST", path, [&context](const HttpRequest& http) { return ServeChat(context, http); }});
  }
}

}  // namespace loopserve::server
