// /v1/chat/completions in OpenAI's form.
#include <optional>
#include <utility>

#include "src/server/chat_messages.h"
#include "src/server/generation.h"
#include "src/server/generation_request.h"
#include "src/server/logprobs.h"
#include "src/server/prompt.h"
#include "src/server/routes.h"
#include "src/server/tool_call_reader.h"
#include "src/server/tools.h"

namespace loopserve::server {
namespace {

struct ChatRequest {
  GenerationRequest generation;
  std::vector<JobSpec> specs;
  std::optional<ToolCallForm> calls;  ///< where the answer may have tool calls
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
  LS_RETURN_IF_ERROR(RefuseFields(body, UnsupportedFields()));
  LS_ASSIGN_OR_RETURN(const JsonIn* modalities, Fields(body).List("modalities", 16));
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
  LS_ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, ParseMessages(body));
  LS_ASSIGN_OR_RETURN(const ToolRequest tools, ParseChatTools(body));
  WantedForm wanted{&tools};
  LS_RETURN_IF_ERROR(ParseResponseFormat(body, &wanted));
  LS_ASSIGN_OR_RETURN(spec.sampling.form, FormOf(*context.engine, wanted));
  if (!tools.empty()) request.calls = CallFormOf(*context.engine);
  LS_ASSIGN_OR_RETURN(const auto add_prompt, Fields(body).Bool("add_generation_prompt"));
  const std::string shown = PlaceTools(*context.engine, tools, &messages);
  LS_ASSIGN_OR_RETURN(spec.prompt, RenderPrompt(context, {messages, add_prompt.value_or(true), shown}, spec));
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

/// index: in a stream's chunks; -1 elsewhere.
Json CallJson(int index, const ToolCall& call) {
  Json json;
  if (index >= 0) json["index"] = index;
  json["id"] = call.id;
  json["type"] = "function";
  json["function"] = {{"name", call.name}, {"arguments", call.arguments}};
  return json;
}

const char* ChatFinishReason(StopReason reason, bool called) {
  return called && reason == StopReason::kEndOfText ? "tool_calls" : FinishReason(reason);
}

Json Head(const std::string& id, const char* object, int64_t created, const std::string& model) {
  return {{"id", id}, {"object", object}, {"created", created}, {"model", model}, {"system_fingerprint", "loopserve"}};
}

class ChatStream : public StreamFormat {
 public:
  ChatStream(const Context& context, const ChatRequest& request, int n_choices)
      : engine_(context.engine), request_(request.generation), roles_(static_cast<size_t>(n_choices), false) {
    for (int i = 0; request.calls && i < n_choices; ++i) readers_.emplace_back(*request.calls);
  }

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
    std::vector<Json> pieces = Pieces(delta);
    if (pieces.empty() && delta.logprob) pieces.push_back({{"content", ""}});
    for (size_t i = 0; i < pieces.size(); ++i) {
      Json entry = Choice(delta.choice, std::move(pieces[i]));
      if (delta.logprob && i == 0) entry["logprobs"] = LogprobsJson(*engine_, {&delta, 1});
      AppendEvent(Chunk(Json::array({std::move(entry)})), out);
    }
    if (!delta.ended) return;
    Json entry = Choice(delta.choice, Json::object());
    const bool called = !readers_.empty() && readers_[choice].n_calls() > 0;
    entry["finish_reason"] = ChatFinishReason(delta.stats.stop_reason, called);
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
  /// The deltas that a piece of an answer means.
  std::vector<Json> Pieces(const AnswerDelta& delta) {
    std::vector<Json> pieces;
    if (readers_.empty()) {
      if (!delta.text.empty()) pieces.push_back({{"content", delta.text}});
      return pieces;
    }
    for (const ToolEvent& event : readers_[static_cast<size_t>(delta.choice)].Push(delta.text, delta.ended)) {
      if (event.kind == ToolEvent::Kind::kText) pieces.push_back({{"content", event.text}});
      if (event.kind == ToolEvent::Kind::kCall) {
        pieces.push_back({{"tool_calls", Json::array({CallJson(event.call, {NewId("call_"), event.text, ""})})}});
      }
      if (event.kind == ToolEvent::Kind::kArguments) {
        const Json call = {{"index", event.call}, {"function", {{"arguments", event.text}}}};
        pieces.push_back({{"tool_calls", Json::array({call})}});
      }
    }
    return pieces;
  }
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
  std::vector<bool> roles_;              ///< whether the choice's first chunk was written
  std::vector<ToolCallReader> readers_;  ///< of each choice; none where no tools may be called
};

/// The message, and whether it calls tools.
std::pair<Json, bool> MessageOf(const ChatRequest& request, const std::string& text) {
  Json message{{"role", "assistant"}, {"content", text}, {"refusal", nullptr}};
  if (!request.calls) return {std::move(message), false};
  const ReadAnswer answer = ReadToolCalls(*request.calls, text);
  if (answer.calls.empty()) return {std::move(message), false};
  message["content"] = answer.text.empty() ? Json(nullptr) : Json(answer.text);
  Json calls = Json::array();
  for (const ToolCall& call : answer.calls) calls.push_back(CallJson(-1, {NewId("call_"), call.name, call.arguments}));
  message["tool_calls"] = std::move(calls);
  return {std::move(message), true};
}

Json ChatJson(const Context& context, const ChatRequest& chat, std::span<const ChoiceResult> choices,
              const Totals& totals) {
  const GenerationRequest& request = chat.generation;
  Json json = Head(NewId("chatcmpl-"), "chat.completion", UnixSeconds(), request.model);
  Json list = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    Json choice;
    choice["index"] = i;
    auto [message, called] = MessageOf(chat, choices[i].text);
    choice["message"] = std::move(message);
    choice["logprobs"] =
        request.spec.top_logprobs >= 0 ? LogprobsJson(*context.engine, choices[i].tokens) : Json(nullptr);
    choice["finish_reason"] = ChatFinishReason(choices[i].stats.stop_reason, called);
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
  return ServeGeneration(
      context, http, std::move(request->specs), request->generation.stream,
      {[&](int n) { return std::make_unique<ChatStream>(context, *request, n); },
       [&](auto choices, const Totals& totals) { return ChatJson(context, *request, choices, totals); }, ErrorReply});
}

}  // namespace

void AddChatRoutes(Context& context, std::vector<Route>* routes) {
  for (const char* path : {"/v1/chat/completions", "/chat/completions"}) {
    routes->push_back({"POST", path, [&context](const HttpRequest& http) { return ServeChat(context, http); }});
  }
}

}  // namespace loopserve::server
