// /v1/messages in Anthropic's form: texts and tools.
#include <optional>
#include <utility>

#include "src/server/chat_messages.h"
#include "src/server/generation.h"
#include "src/server/generation_request.h"
#include "src/server/prompt.h"
#include "src/server/routes.h"
#include "src/server/tool_call_reader.h"
#include "src/server/tools.h"

namespace loopserve::server {
namespace {

Json MessagesError(const ApiError& error) {
  const char* type = "invalid_request_error";
  if (error.http_status == 401) type = "authentication_error";
  if (error.http_status == 404) type = "not_found_error";
  if (error.http_status == 429) type = "rate_limit_error";
  if (error.http_status == 503) type = "overloaded_error";
  if (error.http_status == 500 || error.http_status == 504) type = "api_error";
  return {{"type", "error"}, {"error", {{"type", type}, {"message", error.message}}}};
}

HttpReply MessagesErrorReply(const ApiError& error) {
  HttpReply reply = ErrorReply(error);
  reply.body = ToText(MessagesError(error));
  return reply;
}

struct MessagesRequest {
  GenerationRequest generation;
  std::vector<std::string> stops;
  std::optional<ToolCallForm> calls;  ///< where the answer may have tool calls
};

Result<MessagesRequest> ParseMessagesRequest(const Context& context, const HttpRequest& http) {
  LS_ASSIGN_OR_RETURN(JsonIn body, ParseBody(http.body));
  LS_RETURN_IF_ERROR(RefuseFields(body, {"mcp_servers", "container", "output_format", "output_config"}));
  if (const auto thinking = body.find("thinking"); thinking != body.end() && thinking->is_object()) {
    LS_ASSIGN_OR_RETURN(const auto type, Fields(*thinking, "thinking.").Text("type"));
    if (type && *type != "disabled") return Status(StatusCode::kUnsupported, "thinking is not supported");
  }
  if (const auto stops = body.find("stop_sequences"); stops != body.end()) body["stop"] = *stops;
  body["n"] = 1;
  MessagesRequest request;
  LS_ASSIGN_OR_RETURN(request.generation, ParseGeneration(context, http, body));
  JobSpec& spec = request.generation.spec;
  if (Fields(body).Find("max_tokens") == nullptr) return Status(StatusCode::kInvalidArgument, "max_tokens is missing");
  LS_RETURN_IF_ERROR(ParseMaxTokens(body, {"max_tokens"}, &spec.sampling));
  LS_ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, ParseMessagesWithBlocks(body));
  if (const JsonIn* system = Fields(body).Find("system"); system != nullptr) {
    LS_ASSIGN_OR_RETURN(std::string text, ContentText(*system, "system"));
    messages.insert(messages.begin(), {"system", std::move(text)});
  }
  LS_ASSIGN_OR_RETURN(const ToolRequest tools, ParseMessagesTools(body));
  LS_ASSIGN_OR_RETURN(spec.sampling.form, FormOf(*context.engine, {&tools}));
  if (!tools.empty()) request.calls = CallFormOf(*context.engine);
  const std::string shown = PlaceTools(*context.engine, tools, &messages);
  LS_ASSIGN_OR_RETURN(spec.prompt, RenderPrompt(context, {messages, true, shown}, spec));
  LS_RETURN_IF_ERROR(CheckLength(context, spec.prompt.size(), spec.sampling));
  request.stops = spec.sampling.stop;
  return request;
}

Json Usage(int64_t prompt, int64_t cached, int64_t output) {
  return {{"input_tokens", prompt - cached},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", cached},
          {"output_tokens", output}};
}

const char* StopReasonText(StopReason reason, bool called) {
  if (called && reason == StopReason::kEndOfText) return "tool_use";
  if (reason == StopReason::kStopString) return "stop_sequence";
  return reason == StopReason::kMaxTokens || reason == StopReason::kContextFull ? "max_tokens" : "end_turn";
}

/// Which of several texts it was is not known.
Json StopSequence(StopReason reason, const std::vector<std::string>& stops) {
  return reason == StopReason::kStopString && stops.size() == 1 ? Json(stops[0]) : Json(nullptr);
}

Json MessageJson(const std::string& model) {
  return {{"id", NewId("msg_")},      {"type", "message"},      {"role", "assistant"},     {"model", model},
          {"content", Json::array()}, {"stop_reason", nullptr}, {"stop_sequence", nullptr}};
}

Json TextBlock(const std::string& text) { return {{"type", "text"}, {"text", text}}; }

Json CallBlock(const std::string& name, Json input) {
  return {{"type", "tool_use"}, {"id", NewId("toolu_")}, {"name", name}, {"input", std::move(input)}};
}

class MessagesStream : public StreamFormat {
 public:
  explicit MessagesStream(MessagesRequest request) : request_(std::move(request)) {
    if (request_.calls) reader_.emplace(*request_.calls);
  }

  void Read(const PromptRead& read, std::string* out) override {
    Json message = MessageJson(request_.generation.model);
    message["usage"] = Usage(read.stats.prompt_tokens, read.stats.cached_tokens, 0);
    Send("message_start", {{"message", std::move(message)}}, out);
  }
  void Delta(const AnswerDelta& delta, std::string* out) override {
    if (!reader_) {
      AddText(delta.text, out);
    } else {
      for (const ToolEvent& event : reader_->Push(delta.text, delta.ended)) {
        if (event.kind == ToolEvent::Kind::kText) AddText(event.text, out);
        if (event.kind == ToolEvent::Kind::kCall) Open(CallBlock(event.text, Json::object()), out);
        if (event.kind == ToolEvent::Kind::kArguments) {
          AddDelta({{"type", "input_json_delta"}, {"partial_json", event.text}}, out);
        }
      }
    }
    if (!delta.ended) return;
    if (next_block_ == 0) Open(TextBlock(""), out);
    Close(out);
    const StopReason reason = delta.stats.stop_reason;
    const bool called = reader_ && reader_->n_calls() > 0;
    Send("message_delta",
         {{"delta",
           {{"stop_reason", StopReasonText(reason, called)}, {"stop_sequence", StopSequence(reason, request_.stops)}}},
          {"usage", {{"output_tokens", delta.stats.output_tokens}}}},
         out);
  }
  void Failed(const ApiError& error, std::string* out) override {
    AppendNamedEvent("error", MessagesError(error), out);
  }
  void Done(const Totals&, std::string* out) override { Send("message_stop", Json::object(), out); }

 private:
  void Open(Json block, std::string* out) {
    Close(out);
    open_ = true;
    in_text_ = block["type"] == "text";
    Send("content_block_start", {{"index", next_block_++}, {"content_block", std::move(block)}}, out);
  }
  void Close(std::string* out) {
    if (open_) Send("content_block_stop", {{"index", next_block_ - 1}}, out);
    open_ = false;
  }
  void AddDelta(Json delta, std::string* out) {
    Send("content_block_delta", {{"index", next_block_ - 1}, {"delta", std::move(delta)}}, out);
  }
  void AddText(const std::string& text, std::string* out) {
    if (text.empty()) return;
    if (!open_ || !in_text_) Open(TextBlock(""), out);
    AddDelta({{"type", "text_delta"}, {"text", text}}, out);
  }
  void Send(const std::string& type, Json data, std::string* out) {
    Json event = {{"type", type}};
    event.update(data);
    AppendNamedEvent(type, event, out);
  }

  const MessagesRequest request_;
  std::optional<ToolCallReader> reader_;
  int next_block_ = 0;
  bool open_ = false, in_text_ = false;
};

Json WholeMessage(const MessagesRequest& request, const ChoiceResult& answer, const Totals& totals) {
  Json json = MessageJson(request.generation.model);
  ReadAnswer read{answer.text, {}};
  if (request.calls) read = ReadToolCalls(*request.calls, answer.text);
  if (!read.text.empty() || read.calls.empty()) json["content"].push_back(TextBlock(read.text));
  for (const ToolCall& call : read.calls) {
    // Cut off by max_tokens they are no JSON: what there is of them is not shown then.
    Json input = Json::parse(call.arguments, nullptr, false);
    json["content"].push_back(CallBlock(call.name, input.is_object() ? std::move(input) : Json::object()));
  }
  json["stop_reason"] = StopReasonText(answer.stats.stop_reason, !read.calls.empty());
  json["stop_sequence"] = StopSequence(answer.stats.stop_reason, request.stops);
  json["usage"] = Usage(totals.prompt_tokens, totals.cached_tokens, totals.output_tokens);
  json["timings"] = TimingsJson(totals);
  json["loopserve"] = SessionJson(totals);
  return json;
}

HttpReply ServeMessages(Context& context, const HttpRequest& http) {
  Result<MessagesRequest> request = ParseMessagesRequest(context, http);
  if (!request.ok()) return MessagesErrorReply(ToApiError(request.status()));
  return ServeGeneration(
      context, http, {request->generation.spec}, request->generation.stream,
      {[&](int) { return std::make_unique<MessagesStream>(*request); },
       [&](auto choices, const Totals& totals) { return WholeMessage(*request, choices[0], totals); },
       MessagesErrorReply});
}

}  // namespace

void AddMessagesRoutes(Context& context, std::vector<Route>* routes) {
  routes->push_back({"POST", "/v1/messages",
                     [&context](const HttpRequest& http) { return ServeMessages(context, http); }, false,
                     MessagesErrorReply});
}

}  // namespace loopserve::server
