#include "src/server/chat_messages.h"

#include <algorithm>

namespace loopserve::server {
namespace {

constexpr size_t kMaxRoleBytes = 64;
constexpr size_t kMaxParts = 10'000;

}  // namespace

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
    for (const char* calls : {"tool_calls", "function_call"}) {
      const JsonIn* value = fields.Find(calls);
      if (value != nullptr && !value->empty()) {
        return Status(StatusCode::kUnsupported, fields.NameOf(calls) + " is not supported");
      }
    }
    const JsonIn* content = fields.Find("content");
    if (content == nullptr && *role != "assistant") {
      return Status(StatusCode::kInvalidArgument, where + ".content is missing");
    }
    ChatMessage message;
    message.role = std::move(*role);
    if (content != nullptr) {
      LS_ASSIGN_OR_RETURN(message.content, ContentText(*content, where + ".content"));
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

}  // namespace loopserve::server
