// /v1/responses in OpenAI's newer form, for texts. Nothing is stored: the whole dialogue comes with each request.
#include <utility>

#include "src/server/chat_messages.h"
#include "src/server/generation.h"
#include "src/server/generation_request.h"
#include "src/server/prompt.h"
#include "src/server/routes.h"

namespace loopserve::server {
namespace {

struct ResponsesRequest {
  GenerationRequest generation;
  Json instructions = nullptr;
};

Status RefuseModes(const JsonIn& body) {
  LS_RETURN_IF_ERROR(RefuseFields(body, {"previous_response_id", "conversation", "background", "prompt", "include"}));
  const JsonIn* choice = Fields(body).Find("tool_choice");
  if (choice == nullptr || *choice != "none") LS_RETURN_IF_ERROR(RefuseFields(body, {"tools"}));
  LS_ASSIGN_OR_RETURN(const auto truncation, Fields(body).Text("truncation"));
  if (truncation && *truncation != "disabled") {
    return Status(StatusCode::kUnsupported, "truncation is not supported: nothing is ever cut");
  }
  LS_ASSIGN_OR_RETURN(const JsonIn* text, Fields(body).Object("text"));
  if (text == nullptr) return Status::Ok();
  LS_ASSIGN_OR_RETURN(const JsonIn* format, Fields(*text, "text.").Object("format"));
  if (format == nullptr) return Status::Ok();
  LS_ASSIGN_OR_RETURN(const auto type, Fields(*format, "text.format.").Text("type"));
  if (type && *type != "text") {
    return Status(StatusCode::kUnsupported, "text.format.type '" + *type + "' is not supported");
  }
  return Status::Ok();
}

Result<ChatMessage> ParseItem(const JsonIn& item, const std::string& where) {
  if (!item.is_object()) return Status(StatusCode::kInvalidArgument, where + " must be an object");
  const Fields fields(item, where + ".");
  LS_ASSIGN_OR_RETURN(const auto type, fields.Text("type", 64));
  if (type && *type != "message") {
    return Status(StatusCode::kUnsupported, where + ": items of type '" + *type + "' are not supported");
  }
  LS_ASSIGN_OR_RETURN(const auto role, fields.Text("role", 64));
  if (!role || role->empty()) return Status(StatusCode::kInvalidArgument, where + ".role is missing");
  const JsonIn* content = fields.Find("content");
  if (content == nullptr) return Status(StatusCode::kInvalidArgument, where + ".content is missing");
  ChatMessage message{*role == "developer" ? "system" : *role, ""};
  LS_ASSIGN_OR_RETURN(message.content,
                      ContentText(*content, where + ".content", {"input_text", "output_text", "text"}));
  return message;
}

Result<std::vector<ChatMessage>> ParseInput(const JsonIn& body) {
  std::vector<ChatMessage> messages;
  LS_ASSIGN_OR_RETURN(const auto instructions, Fields(body).Text("instructions"));
  if (instructions) messages.push_back({"system", *instructions});
  const JsonIn* input = Fields(body).Find("input");
  if (input == nullptr) return Status(StatusCode::kInvalidArgument, "input is missing");
  if (input->is_string()) {
    messages.push_back({"user", input->get<std::string>()});
    return messages;
  }
  LS_ASSIGN_OR_RETURN(const JsonIn* list, Fields(body).List("input", kMaxMessages));
  if (list->empty()) return Status(StatusCode::kInvalidArgument, "input is empty");
  for (size_t i = 0; i < list->size(); ++i) {
    LS_ASSIGN_OR_RETURN(ChatMessage message, ParseItem((*list)[i], "input[" + std::to_string(i) + "]"));
    messages.push_back(std::move(message));
  }
  return messages;
}

Result<ResponsesRequest> ParseResponses(const Context& context, const HttpRequest& http) {
  LS_ASSIGN_OR_RETURN(JsonIn body, ParseBody(http.body));
  LS_RETURN_IF_ERROR(RefuseModes(body));
  body["n"] = 1;
  ResponsesRequest request;
  LS_ASSIGN_OR_RETURN(request.generation, ParseGeneration(context, http, body));
  JobSpec& spec = request.generation.spec;
  LS_RETURN_IF_ERROR(ParseMaxTokens(body, {"max_output_tokens"}, &spec.sampling));
  LS_ASSIGN_OR_RETURN(const std::vector<ChatMessage> messages, ParseInput(body));
  LS_ASSIGN_OR_RETURN(spec.prompt, RenderPrompt(context, messages, true, spec));
  LS_RETURN_IF_ERROR(CheckLength(context, spec.prompt.size(), spec.sampling));
  if (const JsonIn* instructions = Fields(body).Find("instructions")) {
    request.instructions = instructions->get<std::string>();
  }
  return request;
}

/// One response as it grows.
class ResponseJson {
 public:
  explicit ResponseJson(const ResponsesRequest& request) : request_(request) {}
  const std::string& item_id() const { return item_id_; }

  Json Part(const std::string& text) const {
    return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}};
  }
  Json Item(const char* status, Json content) const {
    return {{"id", item_id_},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }
  Json Whole(const char* status, Json output) const {
    const SamplingParams& sampling = request_.generation.spec.sampling;
    Json json;
    json["id"] = id_;
    json["object"] = "response";
    json["created_at"] = created_;
    json["status"] = status;
    json["error"] = nullptr;
    json["incomplete_details"] = nullptr;
    json["instructions"] = request_.instructions;
    json["max_output_tokens"] = sampling.max_tokens >= 0 ? Json(sampling.max_tokens) : Json(nullptr);
    json["model"] = request_.generation.model;
    json["output"] = std::move(output);
    json["parallel_tool_calls"] = false;
    json["previous_response_id"] = nullptr;
    json["store"] = false;
    json["temperature"] = sampling.temperature;
    json["text"] = {{"format", {{"type", "text"}}}};
    json["tool_choice"] = "none";
    json["tools"] = Json::array();
    json["top_p"] = sampling.top_p;
    json["truncation"] = "disabled";
    json["usage"] = nullptr;
    json["metadata"] = Json::object();
    return json;
  }
  Json Ended(const std::string& text, StopReason reason, const Totals& totals) const {
    const bool cut = std::string(FinishReason(reason)) == "length";
    const char* status = cut ? "incomplete" : "completed";
    Json json = Whole(status, Json::array({Item(status, Json::array({Part(text)}))}));
    if (cut) json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    json["usage"] = {{"input_tokens", totals.prompt_tokens},
                     {"input_tokens_details", {{"cached_tokens", totals.cached_tokens}}},
                     {"output_tokens", totals.output_tokens},
                     {"output_tokens_details", {{"reasoning_tokens", 0}}},
                     {"total_tokens", totals.prompt_tokens + totals.output_tokens}};
    json["timings"] = TimingsJson(totals);
    json["loopserve"] = SessionJson(totals);
    return json;
  }

 private:
  const ResponsesRequest request_;
  const std::string id_ = NewId("resp_"), item_id_ = NewId("msg_");
  const int64_t created_ = UnixSeconds();
};

class ResponsesStream : public StreamFormat {
 public:
  explicit ResponsesStream(const ResponsesRequest& request) : response_(request) {}

  void Read(const PromptRead&, std::string* out) override {
    const Json started = response_.Whole("in_progress", Json::array());
    Send("response.created", {{"response", started}}, out);
    Send("response.in_progress", {{"response", started}}, out);
    Send("response.output_item.added", {{"output_index", 0}, {"item", response_.Item("in_progress", Json::array())}},
         out);
    Send("response.content_part.added", Place({{"part", response_.Part("")}}), out);
  }
  void Delta(const AnswerDelta& delta, std::string* out) override {
    text_ += delta.text;
    if (!delta.text.empty()) {
      Send("response.output_text.delta", Place({{"delta", delta.text}, {"logprobs", Json::array()}}), out);
    }
    if (delta.ended) reason_ = delta.stats.stop_reason;
  }
  void Failed(const ApiError& error, std::string* out) override {
    Send("error", {{"code", error.code}, {"message", error.message}, {"param", nullptr}}, out);
  }
  void Done(const Totals& totals, std::string* out) override {
    const Json whole = response_.Ended(text_, reason_, totals);
    Send("response.output_text.done", Place({{"text", text_}, {"logprobs", Json::array()}}), out);
    Send("response.content_part.done", Place({{"part", response_.Part(text_)}}), out);
    Send("response.output_item.done", {{"output_index", 0}, {"item", whole["output"][0]}}, out);
    Send(whole["status"] == "completed" ? "response.completed" : "response.incomplete", {{"response", whole}}, out);
  }

 private:
  Json Place(Json data) const {
    data["item_id"] = response_.item_id();
    data["output_index"] = 0;
    data["content_index"] = 0;
    return data;
  }
  void Send(const std::string& type, Json data, std::string* out) {
    data["type"] = type;
    data["sequence_number"] = number_++;
    AppendNamedEvent(type, data, out);
  }

  const ResponseJson response_;
  std::string text_;
  StopReason reason_ = StopReason::kEndOfText;
  int64_t number_ = 0;
};

HttpReply ServeResponses(Context& context, const HttpRequest& http) {
  Result<ResponsesRequest> request = ParseResponses(context, http);
  if (!request.ok()) return ErrorReply(request.status());
  return ServeGeneration(context, http, {request->generation.spec}, request->generation.stream,
                         {[&](int) { return std::make_unique<ResponsesStream>(*request); },
                          [&](auto choices, const Totals& totals) {
                            return ResponseJson(*request).Ended(choices[0].text, choices[0].stats.stop_reason, totals);
                          },
                          ErrorReply});
}

}  // namespace

void AddResponsesRoutes(Context& context, std::vector<Route>* routes) {
  routes->push_back(
      {"POST", "/v1/responses", [&context](const HttpRequest& http) { return ServeResponses(context, http); }});
}

}  // namespace loopserve::server
