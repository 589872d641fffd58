// /v1/messages in Anthropic's form, for texts.
#include <utility>

#include "src/server/chat_messages.h"
#include "src/server/generation.h"
#include "src/server/generation_request.h"
#include "src/server/prompt.h"
#include "src/server/routes.h"

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
};

Result<MessagesRequest> ParseMessagesRequest(const Context& context, const HttpRequest& http) {
  LS_ASSIGN_OR_RETURN(JsonIn body, ParseBody(http.body));
  LS_RETURN_IF_ERROR(RefuseFields(body, {"tools", "tool_choice", "mcp_servers", "container"}));
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
  LS_ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, ParseMessages(body));
  if (const JsonIn* system = Fields(body).Find("system"); system != nullptr) {
    LS_ASSIGN_OR_RETURN(std::string text, ContentText(*system, "system"));
    messages.insert(messages.begin(), {"system", std::move(text)});
  }
  LS_ASSIGN_OR_RETURN(spec.prompt, RenderPrompt(context, messages, true, spec));
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

const char* StopReasonText(StopReason reason) {
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

class MessagesStream : public StreamFormat {
 public:
  explicit MessagesStream(MessagesRequest request) : request_(std::move(request)) {}

  void Read(const PromptRead& read, std::string* out) override {
    Json message = MessageJson(request_.generation.model);
    message["usage"] = Usage(read.stats.prompt_tokens, read.stats.cached_tokens, 0);
    AppendNamedEvent("message_start", {{"type", "message_start"}, {"message", std::move(message)}}, out);
    AppendNamedEvent(
        "content_block_start",
        {{"type", "content_block_start"}, {"index", 0}, {"content_block", {{"type", "text"}, {"text", ""}}}}, out);
  }
  void Delta(const AnswerDelta& delta, std::string* out) override {
    if (!delta.text.empty()) {
      AppendNamedEvent(
          "content_block_delta",
          {{"type", "content_block_delta"}, {"index", 0}, {"delta", {{"type", "text_delta"}, {"text", delta.text}}}},
          out);
    }
    if (!delta.ended) return;
    AppendNamedEvent("content_block_stop", {{"type", "content_block_stop"}, {"index", 0}}, out);
    const StopReason reason = delta.stats.stop_reason;
    AppendNamedEvent(
        "message_delta",
        {{"type", "message_delta"},
         {"delta", {{"stop_reason", StopReasonText(reason)}, {"stop_sequence", StopSequence(reason, request_.stops)}}},
         {"usage", {{"output_tokens", delta.stats.output_tokens}}}},
        out);
  }
  void Failed(const ApiError& error, std::string* out) override {
    AppendNamedEvent("error", MessagesError(error), out);
  }
  void Done(const Totals&, std::string* out) override {
    AppendNamedEvent("message_stop", {{"type", "message_stop"}}, out);
  }

 private:
  const MessagesRequest request_;
};

Json WholeMessage(const MessagesRequest& request, const ChoiceResult& answer, const Totals& totals) {
  Json json = MessageJson(request.generation.model);
  json["content"].push_back({{"type", "text"}, {"text", answer.text}});
  json["stop_reason"] = StopReasonText(answer.stats.stop_reason);
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
  routes->push_back(
      {"POST", "/v1/messages", [&context](const HttpRequest& http) { return ServeMessages(context, http); }});
}

}  // namespace loopserve::server
