// /v1/responses in OpenAI's newer form. Nothing is stored: the whole dialogue comes with each request.
#include <utility>

#include "src/server/generation.h"
#include "src/server/responses_request.h"
#include "src/server/routes.h"
#include "src/server/tool_call_reader.h"

namespace loopserve::server {
namespace {

Json TextPart(const std::string& text) {
  return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}};
}

Json MessageItem(const std::string& id, const char* status, Json content) {
  return {{"id", id}, {"type", "message"}, {"status", status}, {"role", "assistant"}, {"content", std::move(content)}};
}

Json CallItem(const std::string& id, const char* status, const ToolCall& call) {
  return {{"id", id},           {"type", "function_call"}, {"status", status},
          {"call_id", call.id}, {"name", call.name},       {"arguments", call.arguments}};
}

/// One response, but for what it says.
class ResponseJson {
 public:
  explicit ResponseJson(const ResponsesRequest& request) : request_(request) {}

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
    json["parallel_tool_calls"] = request_.parallel_tool_calls;
    json["previous_response_id"] = nullptr;
    json["store"] = false;
    json["temperature"] = sampling.temperature;
    json["text"] = request_.text;
    json["tool_choice"] = request_.tool_choice;
    json["tools"] = request_.tools;
    json["top_p"] = sampling.top_p;
    json["truncation"] = "disabled";
    json["usage"] = nullptr;
    json["metadata"] = Json::object();
    return json;
  }
  Json Ended(Json output, StopReason reason, const Totals& totals) const {
    const bool cut = std::string(FinishReason(reason)) == "length";
    Json json = Whole(cut ? "incomplete" : "completed", std::move(output));
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
  const std::string id_ = NewId("resp_");
  const int64_t created_ = UnixSeconds();
};

const char* ItemStatus(StopReason reason) {
  return std::string(FinishReason(reason)) == "length" ? "incomplete" : "completed";
}

class ResponsesStream : public StreamFormat {
 public:
  explicit ResponsesStream(const ResponsesRequest& request) : response_(request) {
    if (request.calls) reader_.emplace(*request.calls);
  }

  void Read(const PromptRead&, std::string* out) override {
    const Json started = response_.Whole("in_progress", Json::array());
    Send("response.created", {{"response", started}}, out);
    Send("response.in_progress", {{"response", started}}, out);
  }
  void Delta(const AnswerDelta& delta, std::string* out) override {
    if (delta.ended) reason_ = delta.stats.stop_reason;
    if (!reader_) {
      AddText(delta.text, out);
      return;
    }
    for (const ToolEvent& event : reader_->Push(delta.text, delta.ended)) {
      if (event.kind == ToolEvent::Kind::kText) AddText(event.text, out);
      if (event.kind == ToolEvent::Kind::kCall) OpenCall(event.text, out);
      if (event.kind == ToolEvent::Kind::kArguments) AddArguments(event.text, out);
      if (event.kind == ToolEvent::Kind::kCallEnd) Close("completed", out);
    }
  }
  void Failed(const ApiError& error, std::string* out) override {
    Send("error", {{"code", error.code}, {"message", error.message}, {"param", nullptr}}, out);
  }
  void Done(const Totals& totals, std::string* out) override {
    if (output_.empty() && !open_) OpenMessage(out);
    Close(ItemStatus(reason_), out);
    const Json whole = response_.Ended(output_, reason_, totals);
    Send(whole["status"] == "completed" ? "response.completed" : "response.incomplete", {{"response", whole}}, out);
  }

 private:
  void OpenMessage(std::string* out) {
    open_ = is_message_ = true;
    item_id_ = NewId("msg_");
    text_.clear();
    Send("response.output_item.added",
         {{"output_index", output_.size()}, {"item", MessageItem(item_id_, "in_progress", Json::array())}}, out);
    Send("response.content_part.added", Part({{"part", TextPart("")}}), out);
  }
  void AddText(const std::string& text, std::string* out) {
    if (text.empty()) return;
    if (!open_) OpenMessage(out);
    text_ += text;
    Send("response.output_text.delta", Part({{"delta", text}, {"logprobs", Json::array()}}), out);
  }
  void OpenCall(const std::string& name, std::string* out) {
    Close("completed", out);
    open_ = true;
    is_message_ = false;
    item_id_ = NewId("fc_");
    call_ = {NewId("call_"), name, ""};
    Send("response.output_item.added",
         {{"output_index", output_.size()}, {"item", CallItem(item_id_, "in_progress", call_)}}, out);
  }
  void AddArguments(const std::string& text, std::string* out) {
    call_.arguments += text;
    Send("response.function_call_arguments.delta", Place({{"delta", text}}), out);
  }
  /// Ends the item that is being written, if there is one.
  void Close(const char* status, std::string* out) {
    if (!open_) return;
    open_ = false;
    Json item;
    if (is_message_) {
      Send("response.output_text.done", Part({{"text", text_}, {"logprobs", Json::array()}}), out);
      Send("response.content_part.done", Part({{"part", TextPart(text_)}}), out);
      item = MessageItem(item_id_, status, Json::array({TextPart(text_)}));
    } else {
      Send("response.function_call_arguments.done", Place({{"name", call_.name}, {"arguments", call_.arguments}}), out);
      item = CallItem(item_id_, status, call_);
    }
    Send("response.output_item.done", {{"output_index", output_.size()}, {"item", item}}, out);
    output_.push_back(std::move(item));
  }
  Json Place(Json data) const {
    data["item_id"] = item_id_;
    data["output_index"] = output_.size();
    return data;
  }
  Json Part(Json data) const {
    data = Place(std::move(data));
    data["content_index"] = 0;
    return data;
  }
  void Send(const std::string& type, Json data, std::string* out) {
    data["type"] = type;
    data["sequence_number"] = number_++;
    AppendNamedEvent(type, data, out);
  }

  const ResponseJson response_;
  std::optional<ToolCallReader> reader_;
  Json output_ = Json::array();  ///< items that are complete
  bool open_ = false, is_message_ = false;
  std::string item_id_, text_;
  ToolCall call_;
  StopReason reason_ = StopReason::kEndOfText;
  int64_t number_ = 0;
};

Json WholeResponse(const ResponsesRequest& request, const ChoiceResult& answer, const Totals& totals) {
  const char* status = ItemStatus(answer.stats.stop_reason);
  ReadAnswer read{answer.text, {}};
  if (request.calls) read = ReadToolCalls(*request.calls, answer.text);
  Json output = Json::array();
  if (!read.text.empty() || read.calls.empty()) {
    output.push_back(MessageItem(NewId("msg_"), status, Json::array({TextPart(read.text)})));
  }
  for (ToolCall& call : read.calls) {
    call.id = NewId("call_");
    output.push_back(CallItem(NewId("fc_"), status, call));
  }
  return ResponseJson(request).Ended(std::move(output), answer.stats.stop_reason, totals);
}

HttpReply ServeResponses(Context& context, const HttpRequest& http) {
  Result<ResponsesRequest> request = ParseResponses(context, http);
  if (!request.ok()) return ErrorReply(request.status());
  return ServeGeneration(
      context, http, {request->generation.spec}, request->generation.stream,
      {[&](int) { return std::make_unique<ResponsesStream>(*request); },
       [&](auto choices, const Totals& totals) { return WholeResponse(*request, choices[0], totals); }, ErrorReply});
}

}  // namespace

void AddResponsesRoutes(Context& context, std::vector<Route>* routes) {
  routes->push_back(
      {"POST", "/v1/responses", [&context](const HttpRequest& http) { return ServeResponses(context, http); }});
}

}  // namespace loopserve::server
