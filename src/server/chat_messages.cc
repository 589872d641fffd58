#include "src/server/chat_messages.h"

#include <algorithm>

#include "src/server/json_grammar.h"

namespace loopserve::server {
namespace {

constexpr size_t kMaxRoleBytes = 64;
constexpr size_t kMaxParts = 10'000;

constexpr size_t kMaxIdBytes = 1024;
constexpr size_t kMaxCalls = 1000;

/// Calls of an assistant's message in OpenAI's form; none where it has none.
Result<std::vector<ToolCall>> ParseToolCalls(const Fields& message) {
  std::vector<ToolCall> calls;
  LS_ASSIGN_OR_RETURN(const JsonIn* list, message.List("tool_calls", kMaxCalls));
  for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const std::string where = message.NameOf("tool_calls") + "[" + std::to_string(i) + "]";
    if (!(*list)[i].is_object()) return Status(StatusCode::kInvalidArgument, where + " must be an object");
    const Fields item((*list)[i], where + ".");
    LS_ASSIGN_OR_RETURN(const auto id, item.Text("id", kMaxIdBytes));
    LS_ASSIGN_OR_RETURN(const JsonIn* function, item.Object("function"));
    if (function == nullptr) return Status(StatusCode::kInvalidArgument, where + ".function is missing");
    const Fields fields(*function, where + ".function.");
    LS_ASSIGN_OR_RETURN(const auto name, fields.Text("name", kMaxIdBytes));
    if (!name) return Status(StatusCode::kInvalidArgument, where + ".function.name is missing");
    LS_ASSIGN_OR_RETURN(const auto arguments, fields.Text("arguments"));
    LS_ASSIGN_OR_RETURN(std::string object, ArgumentsText(arguments.value_or(""), where + ".function.arguments"));
    calls.push_back({id.value_or(""), *name, std::move(object)});
  }
  return calls;
}

}  // namespace

Result<std::string> ArgumentsText(const std::string& arguments, const std::string& where) {
  if (arguments.empty()) return std::string("{}");
  LS_ASSIGN_OR_RETURN(const JsonIn object, ParseBody(arguments, where));
  return OneLine(object);
}

Result<std::string> ContentText(const JsonIn& content, const std::string& where,
                                const std::vector<std::string>& text_types) {
  if (content.is_null()) return std::string();
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array() || content.size() > kMaxParts) {
    return Status(StatusCode::kInvalidArgument, where + " must be a string or a list of parts");
  }
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part_name = where + "[" + std::to_string(i) + "]";
    const JsonIn& part = content[i];
    if (part.is_string()) {
      text += part.get_ref<const std::string&>();
      continue;
    }
    if (!part.is_object()) return Status(StatusCode::kInvalidArgument, part_name + " must be an object");
    const Fields fields(part, part_name + ".");
    LS_ASSIGN_OR_RETURN(const std::optional<std::string> type, fields.Text("type", kMaxRoleBytes));
    if (!type) return Status(StatusCode::kInvalidArgument, part_name + ".type is missing");
    if (std::ranges::find(text_types, *type) == text_types.end()) {
      return Status(StatusCode::kUnsupported, part_name + ": parts of type '" + *type + "' are not supported");
    }
    LS_ASSIGN_OR_RETURN(const std::optional<std::string> part_text, fields.Text("text"));
    if (!part_text) return Status(StatusCode::kInvalidArgument, part_name + ".text is missing");
    text += *part_text;
  }
  return text;
}

Result<std::vector<ChatMessage>> ParseMessages(const JsonIn& body) {
  LS_ASSIGN_OR_RETURN(const JsonIn* list, Fields(body).List("messages", kMaxMessages));
  if (list == nullptr || list->empty()) {
    return Status(StatusCode::kInvalidArgument, "messages must be a list of at least one message");
  }
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string where = "messages[" + std::to_string(i) + "]";
    const JsonIn& item = (*list)[i];
    if (!item.is_object()) return Status(StatusCode::kInvalidArgument, where + " must be an object");
    const Fields fields(item, where + ".");
    LS_ASSIGN_OR_RETURN(std::optional<std::string> role, fields.Text("role", kMaxRoleBytes));
    if (!role || role->empty()) return Status(StatusCode::kInvalidArgument, where + ".role is missing");
    if (fields.Find("function_call") != nullptr) {
      return Status(StatusCode::kUnsupported, fields.NameOf("function_call") + " is not supported; say tool_calls");
    }
    const JsonIn* content = fields.Find("content");
    if (content == nullptr && *role != "assistant") {
      return Status(StatusCode::kInvalidArgument, where + ".content is missing");
    }
    ChatMessage message;
    message.role = *role == "developer" ? "system" : std::move(*role);  // templates know no other name for it
    LS_ASSIGN_OR_RETURN(message.tool_calls, ParseToolCalls(fields));
    if (!message.tool_calls.empty() && message.role != "assistant") {
      return Status(StatusCode::kInvalidArgument, fields.NameOf("tool_calls") + " are the assistant's alone");
    }
    LS_ASSIGN_OR_RETURN(const auto id, fields.Text("tool_call_id", kMaxIdBytes));
    LS_ASSIGN_OR_RETURN(const auto name, fields.Text("name", kMaxIdBytes));
    message.tool_call_id = id.value_or("");
    message.name = name.value_or("");
    if (content != nullptr) {
      LS_ASSIGN_OR_RETURN(message.content, ContentText(*content, where + ".content"));
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

}  // namespace loopserve::server
