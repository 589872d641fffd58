#include "src/server/responses_request.h"

#include <utility>

#include "src/server/chat_messages.h"
#include "src/server/prompt.h"

namespace loopserve::server {
namespace {

constexpr size_t kMaxIdBytes = 1024;

Status RefuseModes(const JsonIn& body) {
  LS_RETURN_IF_ERROR(RefuseFields(body, {"previous_response_id", "conversation", "background", "prompt", "include"}));
  LS_ASSIGN_OR_RETURN(const auto truncation, Fields(body).Text("truncation"));
  if (truncation && *truncation != "disabled") {
    return Status(StatusCode::kUnsupported, "truncation is not supported: nothing is ever cut");
  }
  return Status::Ok();
}

/// A call that the assistant made, as a message of its own.
Result<ChatMessage> ParseCall(const Fields& fields) {
  LS_ASSIGN_OR_RETURN(const auto id, fields.Text("call_id", kMaxIdBytes));
  LS_ASSIGN_OR_RETURN(const auto name, fields.Text("name", kMaxIdBytes));
  if (!name) return Status(StatusCode::kInvalidArgument, fields.NameOf("name") + " is missing");
  LS_ASSIGN_OR_RETURN(const auto arguments, fields.Text("arguments"));
  LS_ASSIGN_OR_RETURN(std::string object, ArgumentsText(arguments.value_or(""), fields.NameOf("arguments")));
  ChatMessage message{"assistant"};
  message.tool_calls.push_back({id.value_or(""), *name, std::move(object)});
  return message;
}

Result<ChatMessage> ParseCallOutput(const Fields& fields) {
  LS_ASSIGN_OR_RETURN(const auto id, fields.Text("call_id", kMaxIdBytes));
  const JsonIn* output = fields.Find("output");
  if (output == nullptr) return Status(StatusCode::kInvalidArgument, fields.NameOf("output") + " is missing");
  ChatMessage message{"tool"};
  LS_ASSIGN_OR_RETURN(message.content,
                      ContentText(*output, fields.NameOf("output"), {"input_text", "output_text", "text"}));
  message.tool_call_id = id.value_or("");
  return message;
}

Result<ChatMessage> ParseItem(const JsonIn& item, const std::string& where) {
  if (!item.is_object()) return Status(StatusCode::kInvalidArgument, where + " must be an object");
  const Fields fields(item, where + ".");
  LS_ASSIGN_OR_RETURN(const auto type, fields.Text("type", 64));
  if (type && *type == "function_call") return ParseCall(fields);
  if (type && *type == "function_call_output") return ParseCallOutput(fields);
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
    // What the assistant said, and calls that follow each other, are one message to a template.
    const bool joins = !message.tool_calls.empty() && !messages.empty() && messages.back().role == "assistant";
    if (joins) {
      messages.back().tool_calls.push_back(std::move(message.tool_calls[0]));
    } else {
      messages.push_back(std::move(message));
    }
  }
  return messages;
}

}  // namespace

Result<ResponsesRequest> ParseResponses(const Context& context, const HttpRequest& http) {
  LS_ASSIGN_OR_RETURN(JsonIn body, ParseBody(http.body));
  LS_RETURN_IF_ERROR(RefuseModes(body));
  body["n"] = 1;
  ResponsesRequest request;
  LS_ASSIGN_OR_RETURN(request.generation, ParseGeneration(context, http, body));
  JobSpec& spec = request.generation.spec;
  LS_RETURN_IF_ERROR(ParseMaxTokens(body, {"max_output_tokens"}, &spec.sampling));
  LS_ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, ParseInput(body));
  LS_ASSIGN_OR_RETURN(const ToolRequest tools, ParseResponsesTools(body));
  WantedForm wanted{&tools};
  LS_RETURN_IF_ERROR(ParseTextFormat(body, &wanted));
  LS_ASSIGN_OR_RETURN(spec.sampling.form, FormOf(*context.engine, wanted));
  if (!tools.empty()) request.calls = CallFormOf(*context.engine);
  const std::string shown = PlaceTools(*context.engine, tools, &messages);
  LS_ASSIGN_OR_RETURN(spec.prompt, RenderPrompt(context, {messages, true, shown}, spec));
  LS_RETURN_IF_ERROR(CheckLength(context, spec.prompt.size(), spec.sampling));
  if (const JsonIn* instructions = Fields(body).Find("instructions")) {
    request.instructions = *instructions;
  }
  // What a reply tells of the request again.
  if (const JsonIn* text = Fields(body).Find("text"); text != nullptr && text->contains("format")) request.text = *text;
  if (const JsonIn* list = Fields(body).Find("tools")) request.tools = *list;
  if (const JsonIn* choice = Fields(body).Find("tool_choice")) request.tool_choice = *choice;
  request.parallel_tool_calls = !tools.one_call;
  return request;
}

}  // namespace loopserve::server
