#include "src/tokenizer/tool_call_form.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace loopserve {
namespace {

constexpr char kFirstName[] = "madeupfirst", kSecondName[] = "madeupsecond";
constexpr char kFirstArguments[] = R"({"madeupkeyone":"madeupvalueone"})";
constexpr char kSecondArguments[] = R"({"madeupkeytwo":"madeupvaluetwo"})";
constexpr char kAnswer[] = "madeupanswer";
constexpr char kTools[] =
    R"([{"type":"function","function":{"name":"madeuptool","description":"x","parameters":{"type":"object","properties":{}}}}])";
/// Of marks around calls: a few words at most.
constexpr size_t kMaxMarkBytes = 256;

/// Where one call's object is in a text, and what stands around its name and arguments.
struct CallAt {
  size_t begin = 0, end = 0;
  std::string before_name, before_arguments, after_arguments;
};

bool IsSpace(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

/// {"name": "NAME", "arguments": {...}}, with the keys and spaces that the template gives it.
std::optional<CallAt> FindCall(const std::string& text, const std::string& name, const std::string& key) {
  const size_t name_at = text.find("\"" + name + "\"");
  if (name_at == std::string::npos) return std::nullopt;
  const size_t key_at = text.find("\"" + key + "\"", name_at);
  const size_t brace = text.rfind('{', name_at);
  if (key_at == std::string::npos || brace == std::string::npos) return std::nullopt;
  const size_t arguments = text.rfind('{', key_at), arguments_end = text.find('}', key_at);
  if (arguments == std::string::npos || arguments < name_at || arguments_end == std::string::npos) return std::nullopt;
  size_t end = arguments_end + 1;
  while (end < text.size() && IsSpace(text[end])) ++end;
  if (end == text.size() || text[end] != '}') return std::nullopt;  // there are other keys, or it is no object
  CallAt call;
  call.begin = brace;
  call.end = end + 1;
  call.before_name = text.substr(brace, name_at - brace);
  call.before_arguments = text.substr(name_at + name.size() + 2, arguments - name_at - name.size() - 2);
  call.after_arguments = text.substr(arguments_end + 1, end - arguments_end);
  // No more than one key before each: {"KEY": and , "KEY":
  const auto n_quotes = [](const std::string& s) { return std::ranges::count(s, '"'); };
  if (n_quotes(call.before_name) != 2 || n_quotes(call.before_arguments) != 2) return std::nullopt;
  return call;
}

}  // namespace

std::optional<ToolCallForm> FindToolCallForm(const ChatTemplate& chat_template, const std::string& bos_text,
                                             const std::string& eos_text) {
  const ChatMessage user{"user", "madeupquestion"};
  const auto render = [&](const std::vector<ChatMessage>& messages, bool add_prompt, const char* tools) {
    const Result<RenderedChat> chat = chat_template.Render({messages, add_prompt, tools}, bos_text, eos_text);
    return chat.ok() ? chat->text : std::string();
  };
  const ToolCall first{"madeupid1", kFirstName, kFirstArguments}, second{"madeupid2", kSecondName, kSecondArguments};
  const std::string prompt = render({user}, true, "");
  const std::string answered = render({user, {"assistant", kAnswer}}, false, "");
  const std::string one = render({user, {"assistant", "", {first}}}, false, "");
  const std::string two = render({user, {"assistant", "", {first, second}}}, false, "");
  if (prompt.empty() || !answered.starts_with(prompt) || !one.starts_with(prompt)) return std::nullopt;
  const size_t answer_at = answered.find(kAnswer);
  if (answer_at == std::string::npos) return std::nullopt;
  const std::string turn_end = answered.substr(answer_at + sizeof(kAnswer) - 1);

  const std::optional<CallAt> call = FindCall(one, kFirstName, "madeupkeyone");
  if (!call || call->begin < prompt.size() || !one.ends_with(turn_end)) return std::nullopt;
  ToolCallForm form;
  form.before_name = call->before_name + "\"";
  form.before_arguments = "\"" + call->before_arguments;
  form.after_arguments = call->after_arguments;
  form.begin = one.substr(prompt.size(), call->begin - prompt.size());
  // What every answer begins with (an empty thought, say) belongs to no call.
  const std::string answer_start = answered.substr(prompt.size(), answer_at - prompt.size());
  if (form.begin.starts_with(answer_start)) form.begin.erase(0, answer_start.size());
  const size_t turn_end_at = one.size() - turn_end.size();
  if (turn_end_at < call->end) return std::nullopt;
  form.end = one.substr(call->end, turn_end_at - call->end);
  const std::optional<CallAt> first_of_two = FindCall(two, kFirstName, "madeupkeyone");
  const std::optional<CallAt> second_of_two = FindCall(two, kSecondName, "madeupkeytwo");
  if (first_of_two && second_of_two && first_of_two->end < second_of_two->begin) {
    form.separator = two.substr(first_of_two->end, second_of_two->begin - first_of_two->end);
  }
  if (std::max({form.begin.size(), form.end.size(), form.separator.size()}) > kMaxMarkBytes) return std::nullopt;
  form.shows_tools = render({user}, true, kTools).find("madeuptool") != std::string::npos;
  return form;
}

}  // namespace loopserve
