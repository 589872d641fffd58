// Messages in Anthropic's form: contents are texts, or lists of blocks that call tools and say what they brought.
#include "src/server/chat_messages.h"
#include "src/server/json_grammar.h"

namespace loopserve::server {
namespace {

constexpr size_t kMaxBlocks = 10'000;
constexpr size_t kMaxIdBytes = 1024;

Status Invalid(const std::string& message) { return Status(StatusCode::kInvalidArgument, message); }

Result<ToolCall> ParseUse(const Fields& block) {
  LS_ASSIGN_OR_RETURN(const auto id, block.Text("id", kMaxIdBytes));
  LS_ASSIGN_OR_RETURN(const auto name, block.Text("name", kMaxIdBytes));
  if (!name) return Invalid(block.NameOf("name") + " is missing");
  LS_ASSIGN_OR_RETURN(const JsonIn* input, block.Object("input"));
  return ToolCall{id.value_or(""), *name, input != nullptr ? OneLine(*input) : "{}"};
}

/// Appends what one message of blocks means: what tools brought comes before what else was said.
Status AppendBlocks(const std::string& role, const JsonIn& blocks, const std::string& where,
                    std::vector<ChatMessage>* messages) {
  ChatMessage said{role};
  bool says_anything = false;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::string name = where + "[" + std::to_string(i) + "]";
    if (!blocks[i].is_object()) return Invalid(name + " must be an object");
    const Fields block(blocks[i], name + ".");
    LS_ASSIGN_OR_RETURN(const auto type, block.Text("type", 64));
    if (type && *type == "tool_use" && role == "assistant") {
      LS_ASSIGN_OR_RETURN(ToolCall call, ParseUse(block));
      said.tool_calls.push_back(std::move(call));
    } else if (type && *type == "tool_result" && role == "user") {
      ChatMessage result{"tool"};
      LS_ASSIGN_OR_RETURN(const auto id, block.Text("tool_use_id", kMaxIdBytes));
      LS_RETURN_IF_ERROR(block.Bool("is_error").status());
      result.tool_call_id = id.value_or("");
      if (const JsonIn* content = block.Find("content")) {
        LS_ASSIGN_OR_RETURN(result.content, ContentText(*content, block.NameOf("content")));
      }
      messages->push_back(std::move(result));
      continue;
    } else {
      LS_ASSIGN_OR_RETURN(const std::string text, ContentText(JsonIn::array({blocks[i]}), where));
      said.content += text;
    }
    says_anything = true;
  }
  if (says_anything || blocks.empty()) messages->push_back(std::move(said));
  return Status::Ok();
}

}  // namespace

Result<std::vector<ChatMessage>> ParseMessagesWithBlocks(const JsonIn& body) {
  LS_ASSIGN_OR_RETURN(const JsonIn* list, Fields(body).List("messages", kMaxMessages));
  if (list == nullptr || list->empty()) return Invalid("messages must be a list of at least one message");
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string where = "messages[" + std::to_string(i) + "]";
    if (!(*list)[i].is_object()) return Invalid(where + " must be an object");
    const Fields fields((*list)[i], where + ".");
    LS_ASSIGN_OR_RETURN(const auto role, fields.Text("role", 64));
    if (!role || role->empty()) return Invalid(where + ".role is missing");
    const JsonIn* content = fields.Find("content");
    if (content == nullptr) return Invalid(where + ".content is missing");
    if (content->is_array()) {
      LS_ASSIGN_OR_RETURN(const JsonIn* blocks, fields.List("content", kMaxBlocks));
      LS_RETURN_IF_ERROR(AppendBlocks(*role, *blocks, where + ".content", &messages));
    } else {
      LS_ASSIGN_OR_RETURN(std::string text, ContentText(*content, where + ".content"));
      messages.push_back(ChatMessage{*role, std::move(text)});
    }
  }
  return messages;
}

}  // namespace loopserve::server
