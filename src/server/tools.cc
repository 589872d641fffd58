#include "src/server/tools.h"

#include <algorithm>

#include "src/server/json_grammar.h"
#include "src/server/json_schema.h"

namespace loopserve::server {
namespace {

using Writer = GrammarWriter;

constexpr int kMaxCalls = 16;  // of one answer

const ToolCallForm& CommonForm() {
  static const ToolCallForm form{
      false, "<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>", "{\"name\": \"", "\", \"arguments\": ",
      "}"};
  return form;
}

std::string Trimmed(std::string text) {
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.pop_back();
  return text;
}

/// In OpenAI's form.
Json ToolJson(const Tool& tool) {
  Json function;
  function["name"] = tool.name;
  if (!tool.description.empty()) function["description"] = tool.description;
  function["parameters"] = tool.parameters;
  return {{"type", "function"}, {"function", std::move(function)}};
}

void DescribeTools(const ToolRequest& request, std::vector<ChatMessage>* messages) {
  const ToolCallForm& form = CommonForm();
  std::string text = "You may call functions. To call one, answer with\n" + form.begin + form.before_name + "NAME" +
                     form.before_arguments + "{...}" + form.after_arguments + form.end + "\nThe functions are:";
  for (const Tool& tool : request.tools) text += "\n" + OneLine(ToolJson(tool));
  if (!messages->empty() && messages->front().role == "system") {
    messages->front().content += "\n\n" + text;
  } else {
    messages->insert(messages->begin(), ChatMessage{"system", text});
  }
}

std::string CallsText(const ToolCallForm& form, const std::vector<ToolCall>& calls) {
  std::string text = form.begin;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (i > 0) text += form.separator;
    text += form.before_name + calls[i].name + form.before_arguments + calls[i].arguments + form.after_arguments;
  }
  return text + form.end;
}

/// Calls as text of the assistant, what tools said as text of the user.
void WriteCallsOut(std::vector<ChatMessage>* messages) {
  std::vector<ChatMessage> plain;
  bool after_tool = false;
  for (ChatMessage& message : *messages) {
    if (message.role == "tool") {
      const std::string text = "<tool_response>\n" + message.content + "\n</tool_response>";
      if (after_tool) {
        plain.back().content += "\n" + text;
      } else {
        plain.push_back(ChatMessage{"user", text});
      }
      after_tool = true;
      continue;
    }
    after_tool = false;
    if (!message.tool_calls.empty()) {
      message.content += CallsText(CommonForm(), message.tool_calls);
      message.tool_calls.clear();
    }
    plain.push_back(std::move(message));
  }
  *messages = std::move(plain);
}

Result<int> CallRule(const ToolCallForm& form, const ToolRequest& request, Writer& writer, JsonGrammar& json) {
  std::vector<Writer::Sequence> calls;
  for (const Tool& tool : request.tools) {
    int arguments = -1;
    if (tool.any_arguments) {
      arguments = json.Object();
    } else {
      LS_ASSIGN_OR_RETURN(arguments, SchemaRule(tool.parameters, tool.schema_name, writer, json));
    }
    calls.push_back({Writer::Text(form.before_name + tool.name + form.before_arguments), Writer::Rule(arguments),
                     Writer::Text(form.after_arguments)});
  }
  const int call = writer.Add(std::move(calls));
  Writer::Sequence all;
  if (!form.begin.empty()) all.push_back(Writer::Text(form.begin));
  all.push_back(Writer::Rule(call));
  if (!request.one_call && !form.separator.empty()) {
    const int more = writer.Add({{Writer::Text(form.separator), Writer::Rule(call)}});
    all.push_back(Writer::Rule(more, 0, kMaxCalls - 1));
  }
  if (!form.end.empty()) all.push_back(Writer::Text(form.end));
  return writer.Add({std::move(all)});
}

}  // namespace

ToolCallForm CallFormOf(const Engine& engine) {
  const ToolCallForm* form = engine.tool_call_form();
  return form != nullptr ? *form : CommonForm();
}

std::string PlaceTools(const Engine& engine, const ToolRequest& request, std::vector<ChatMessage>* messages) {
  const ToolCallForm* form = engine.tool_call_form();
  if (form == nullptr) WriteCallsOut(messages);
  if (request.empty()) return "";
  if (form == nullptr || !form->shows_tools) {
    DescribeTools(request, messages);
    return "";
  }
  Json list = Json::array();
  for (const Tool& tool : request.tools) list.push_back(ToolJson(tool));
  return ToText(list);
}

Result<AnswerForm> FormOf(const Engine& engine, const WantedForm& wanted) {
  AnswerForm answer;
  const bool calls = wanted.tools != nullptr && !wanted.tools->empty();
  const bool json_text = wanted.schema != nullptr || wanted.any_object;
  if (!calls && !json_text) return answer;
  Writer writer;
  JsonGrammar json(writer);
  std::vector<Writer::Sequence> alternatives;
  std::string what = wanted.schema_name.empty() ? "the answer's form" : wanted.schema_name;
  if (json_text && !(calls && wanted.tools->choice == ToolChoice::kRequired)) {
    int rule = -1;
    if (wanted.schema != nullptr) {
      LS_ASSIGN_OR_RETURN(rule, SchemaRule(*wanted.schema, wanted.schema_name, writer, json));
    } else {
      rule = json.Object();
    }
    alternatives.push_back({Writer::Rule(rule)});
  }
  if (calls) {
    const ToolCallForm form = CallFormOf(engine);
    LS_ASSIGN_OR_RETURN(const int rule, CallRule(form, *wanted.tools, writer, json));
    answer.control_texts = form.begin + form.separator + form.end;
    if (alternatives.empty() && wanted.tools->choice == ToolChoice::kAuto) {
      answer.trigger = Trimmed(form.begin);
      answer.trigger_at_start = answer.trigger.empty();
      if (answer.trigger.empty()) answer.trigger = form.begin + form.before_name;
    }
    alternatives.push_back({Writer::Rule(rule)});
    if (!json_text) what = "tools";
  }
  Result<std::string> gbnf = writer.Write(writer.Add(std::move(alternatives)));
  if (!gbnf.ok()) return gbnf.status().WithContext(what + " cannot be enforced");
  answer.grammar = std::move(gbnf).value();
  const Status status = engine.CheckForm(answer);
  if (!status.ok()) return status.WithContext(what + " cannot be enforced");
  return answer;
}

}  // namespace loopserve::server
