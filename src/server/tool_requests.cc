// What clients write of tools and formats, in three APIs.
#include <algorithm>

#include "src/server/tools.h"

namespace loopserve::server {
namespace {

constexpr size_t kMaxToolNameBytes = 128;

Status Invalid(const std::string& message) { return Status(StatusCode::kInvalidArgument, message); }

bool IsToolName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxToolNameBytes && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  });
}

/// name, description, a schema under `schema_key`, strict.
Result<Tool> ParseTool(const Fields& fields, const std::string& schema_key) {
  Tool tool;
  LS_ASSIGN_OR_RETURN(const auto name, fields.Text("name"));
  if (!name) return Invalid(fields.NameOf("name") + " is missing");
  if (!IsToolName(*name))
    return Invalid(fields.NameOf("name") + " must have 1 to 128 letters, digits, '_', '-' and '.'");
  LS_ASSIGN_OR_RETURN(const auto description, fields.Text("description"));
  LS_ASSIGN_OR_RETURN(const auto strict, fields.Bool("strict"));
  LS_ASSIGN_OR_RETURN(const JsonIn* schema, fields.Object(schema_key));
  tool.name = *name;
  tool.description = description.value_or("");
  tool.any_arguments = strict && !*strict;
  tool.schema_name = fields.NameOf(schema_key);
  const JsonIn none = {{"type", "object"}, {"properties", JsonIn::object()}, {"additionalProperties", false}};
  tool.parameters = schema != nullptr && !schema->empty() ? *schema : none;
  const auto type = tool.parameters.find("type");
  if (type != tool.parameters.end() && *type != "object") return Invalid(tool.schema_name + ".type must be 'object'");
  return tool;
}

Status AddTool(Tool tool, const std::string& where, ToolRequest* request) {
  const bool known = std::ranges::any_of(request->tools, [&](const Tool& t) { return t.name == tool.name; });
  if (known) return Invalid(where + ".name: there are two tools of this name");
  request->tools.push_back(std::move(tool));
  return Status::Ok();
}

/// Leaves the one tool that must be called.
Status KeepOnly(const std::string& name, ToolRequest* request) {
  std::erase_if(request->tools, [&](const Tool& tool) { return tool.name != name; });
  if (request->tools.empty()) return Invalid("tool_choice names a tool that is not in tools");
  request->choice = ToolChoice::kRequired;
  request->one_call = true;
  return Status::Ok();
}

Status ParseWord(const std::string& word, ToolRequest* request) {
  if (word == "auto") {
    request->choice = ToolChoice::kAuto;
  } else if (word == "required" || word == "any") {
    request->choice = ToolChoice::kRequired;
  } else if (word == "none") {
    request->choice = ToolChoice::kNone;
  } else {
    return Invalid("tool_choice must be none, auto, required or name a tool");
  }
  return Status::Ok();
}

/// "auto", or {"type": "function", "function": {"name"}} and {"type": "function", "name"}.
Status ParseOpenAiChoice(const JsonIn& body, ToolRequest* request) {
  const Fields fields(body);
  request->choice = request->tools.empty() ? ToolChoice::kNone : ToolChoice::kAuto;
  LS_ASSIGN_OR_RETURN(const auto parallel, fields.Bool("parallel_tool_calls"));
  request->one_call = parallel && !*parallel;
  const JsonIn* choice = fields.Find("tool_choice");
  if (choice == nullptr) return Status::Ok();
  if (choice->is_string()) {
    LS_RETURN_IF_ERROR(ParseWord(choice->get<std::string>(), request));
  } else {
    LS_ASSIGN_OR_RETURN(const JsonIn* object, fields.Object("tool_choice"));
    LS_ASSIGN_OR_RETURN(const auto type, Fields(*object, "tool_choice.").Text("type", 64));
    if (type.value_or("") != "function") {
      return Status(StatusCode::kUnsupported, "tool_choice.type other than 'function' is not supported");
    }
    LS_ASSIGN_OR_RETURN(const JsonIn* function, Fields(*object, "tool_choice.").Object("function"));
    LS_ASSIGN_OR_RETURN(const auto name,
                        Fields(function != nullptr ? *function : *object, "tool_choice.").Text("name"));
    if (!name) return Invalid("tool_choice.function.name is missing");
    LS_RETURN_IF_ERROR(KeepOnly(*name, request));
  }
  if (request->tools.empty() && !request->empty()) return Invalid("tool_choice asks for tools, but there are none");
  return Status::Ok();
}

Status ParseFormat(const Fields& fields, const Fields& schema_fields, const std::string& type, WantedForm* wanted) {
  if (type == "text") return Status::Ok();
  if (type == "json_object") {
    wanted->any_object = true;
    return Status::Ok();
  }
  if (type != "json_schema") {
    return Status(StatusCode::kUnsupported, fields.NameOf("type") + " '" + type.substr(0, 64) + "' is not supported");
  }
  // Strict or not, what is asked for is kept.
  LS_RETURN_IF_ERROR(schema_fields.Bool("strict").status());
  wanted->schema = schema_fields.Find("schema");
  wanted->schema_name = schema_fields.NameOf("schema");
  if (wanted->schema == nullptr) return Invalid(wanted->schema_name + " is missing");
  return Status::Ok();
}

/// How an API writes a tool.
struct ToolForm {
  const char* type;           ///< the only one that is taken
  bool type_is_required;      ///< else it may be left out
  const char* member;         ///< of the list's item, which holds the tool; null: the item is the tool
  const char* schema_member;  ///< of the tool
};

Status ParseTools(const JsonIn& body, const ToolForm& form, ToolRequest* request) {
  LS_ASSIGN_OR_RETURN(const JsonIn* list, Fields(body).List("tools", kMaxTools));
  for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
    std::string where = "tools[" + std::to_string(i) + "]";
    const JsonIn* described = &(*list)[i];
    if (!described->is_object()) return Invalid(where + " must be an object");
    const Fields item(*described, where + ".");
    LS_ASSIGN_OR_RETURN(const auto type, item.Text("type", 64));
    if (type.value_or(form.type_is_required ? "" : form.type) != form.type) {
      return Status(StatusCode::kUnsupported, where + ".type other than '" + form.type + "' is not supported");
    }
    if (form.member != nullptr) {
      LS_ASSIGN_OR_RETURN(described, item.Object(form.member));
      where.append(".").append(form.member);
      if (described == nullptr) return Invalid(where + " is missing");
    }
    LS_ASSIGN_OR_RETURN(Tool tool, ParseTool(Fields(*described, where + "."), form.schema_member));
    LS_RETURN_IF_ERROR(AddTool(std::move(tool), where, request));
  }
  return Status::Ok();
}

Result<ToolRequest> ParseOpenAiTools(const JsonIn& body, const ToolForm& form) {
  ToolRequest request;
  LS_RETURN_IF_ERROR(ParseTools(body, form, &request));
  LS_RETURN_IF_ERROR(ParseOpenAiChoice(body, &request));
  return request;
}

}  // namespace

Result<ToolRequest> ParseChatTools(const JsonIn& body) {
  return ParseOpenAiTools(body, {"function", false, "function", "parameters"});
}

Result<ToolRequest> ParseResponsesTools(const JsonIn& body) {
  return ParseOpenAiTools(body, {"function", true, nullptr, "parameters"});
}

Result<ToolRequest> ParseMessagesTools(const JsonIn& body) {
  ToolRequest request;
  const Fields fields(body);
  LS_RETURN_IF_ERROR(ParseTools(body, {"custom", false, nullptr, "input_schema"}, &request));
  request.choice = request.tools.empty() ? ToolChoice::kNone : ToolChoice::kAuto;
  LS_ASSIGN_OR_RETURN(const JsonIn* choice, fields.Object("tool_choice"));
  if (choice == nullptr) return request;
  const Fields choice_fields(*choice, "tool_choice.");
  LS_ASSIGN_OR_RETURN(const auto type, choice_fields.Text("type", 64));
  LS_ASSIGN_OR_RETURN(const auto one_call, choice_fields.Bool("disable_parallel_tool_use"));
  if (type.value_or("") == "tool") {
    LS_ASSIGN_OR_RETURN(const auto name, choice_fields.Text("name"));
    if (!name) return Invalid("tool_choice.name is missing");
    LS_RETURN_IF_ERROR(KeepOnly(*name, &request));
  } else {
    LS_RETURN_IF_ERROR(ParseWord(type.value_or(""), &request));
  }
  request.one_call = request.one_call || one_call.value_or(false);
  if (request.tools.empty() && !request.empty()) return Invalid("tool_choice asks for tools, but there are none");
  return request;
}

Status ParseResponseFormat(const JsonIn& body, WantedForm* wanted) {
  LS_ASSIGN_OR_RETURN(const JsonIn* format, Fields(body).Object("response_format"));
  if (format == nullptr) return Status::Ok();
  const Fields fields(*format, "response_format.");
  LS_ASSIGN_OR_RETURN(const auto type, fields.Text("type"));
  if (!type) return Invalid("response_format.type is missing");
  static const JsonIn none = JsonIn::object();
  const JsonIn* named = nullptr;
  if (*type == "json_schema") {
    LS_ASSIGN_OR_RETURN(named, fields.Object("json_schema"));
  }
  return ParseFormat(fields, Fields(named != nullptr ? *named : none, "response_format.json_schema."), *type, wanted);
}

Status ParseTextFormat(const JsonIn& body, WantedForm* wanted) {
  LS_ASSIGN_OR_RETURN(const JsonIn* text, Fields(body).Object("text"));
  if (text == nullptr) return Status::Ok();
  LS_ASSIGN_OR_RETURN(const JsonIn* format, Fields(*text, "text.").Object("format"));
  if (format == nullptr) return Status::Ok();
  const Fields fields(*format, "text.format.");
  LS_ASSIGN_OR_RETURN(const auto type, fields.Text("type"));
  if (!type) return Invalid("text.format.type is missing");
  return ParseFormat(fields, fields, *type, wanted);
}

}  // namespace loopserve::server
