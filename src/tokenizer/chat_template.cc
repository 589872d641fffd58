#include "src/tokenizer/chat_template.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <ctime>
#include <exception>
#include <string_view>

#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#include "jinja/value.h"
#include "json.h"
#include "src/base/json_nesting.h"

namespace loopserve {
namespace {

constexpr size_t kMaxSourceBytes = 1 << 20;
constexpr size_t kMaxNesting = 100;            // of brackets, and of blocks; templates in use stay below 20
constexpr int kMaxTokensPerExpression = 1500;  // a chain of operators makes a tree as deep as it is long
constexpr int64_t kMaxSteps = 100'000;         // loop rounds and macro calls in one rendering: a second or so
constexpr ptrdiff_t kMaxStackBytes = 1 << 20;  // that macros may take by calling each other
constexpr int64_t kMaxRange = 100'000;
constexpr int kMaxJsonDepth = 100;  // of tools and arguments
constexpr size_t kMaxRenderedBytes = size_t{1} << 30;

/// What one rendering may still do; the engine's nodes have no other way to reach it.
struct Budget {
  int64_t steps = kMaxSteps;
  const char* stack_start = nullptr;
};
thread_local Budget* current_budget = nullptr;

/// A statement that renders nothing. Put at the head of every loop and macro body, it ends what would never end.
struct Guard : public jinja::statement {
  std::string type() const override { return "Guard"; }
  jinja::value execute_impl(jinja::context&) const override {
    const char here = 0;
    if (--current_budget->steps < 0) throw std::runtime_error("the template runs for too long");
    if (std::abs(current_budget->stack_start - &here) > kMaxStackBytes) {
      throw std::runtime_error("the template's macros call each other too deeply");
    }
    return jinja::mk_val<jinja::value_undefined>();
  }
};

void AddGuards(jinja::statements& body);

void AddGuards(const jinja::statement_ptr& node) {
  const auto guard_body = [](jinja::statements& body) {
    AddGuards(body);
    body.insert(body.begin(), std::make_unique<Guard>());
  };
  if (auto* loop = dynamic_cast<jinja::for_statement*>(node.get())) {
    guard_body(loop->body);
    AddGuards(loop->default_block);
  } else if (auto* macro = dynamic_cast<jinja::macro_statement*>(node.get())) {
    guard_body(macro->body);
  } else if (auto* call = dynamic_cast<jinja::call_statement*>(node.get())) {
    guard_body(call->body);
  } else if (auto* branch = dynamic_cast<jinja::if_statement*>(node.get())) {
    AddGuards(branch->body);
    AddGuards(branch->alternate);
  } else if (auto* set = dynamic_cast<jinja::set_statement*>(node.get())) {
    AddGuards(set->body);
  } else if (auto* filter = dynamic_cast<jinja::filter_statement*>(node.get())) {
    AddGuards(filter->body);
  }
}

void AddGuards(jinja::statements& body) {
  for (const jinja::statement_ptr& node : body) AddGuards(node);
}

/// Whether the `set` at tokens[i] is a block: it ends without a value having been assigned.
bool IsSetBlock(const std::vector<jinja::token>& tokens, size_t i) {
  using Type = jinja::token::type;
  int brackets = 0;
  for (; i < tokens.size() && tokens[i].t != Type::close_statement; ++i) {
    const Type type = tokens[i].t;
    brackets += type == Type::open_paren || type == Type::open_square_bracket || type == Type::open_curly_bracket;
    brackets -= type == Type::close_paren || type == Type::close_square_bracket || type == Type::close_curly_bracket;
    if (type == Type::equals && brackets == 0) return false;
  }
  return true;
}

/// How deep the blocks are nested at most. An elif is one level more until its endif: the engine makes it an if within
/// the else.
size_t BlockDepth(const std::vector<jinja::token>& tokens) {
  std::vector<size_t> levels;  // of each open block
  size_t depth = 0, deepest = 0;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    if (tokens[i].t != jinja::token::open_statement || tokens[i + 1].t != jinja::token::identifier) continue;
    const std::string& name = tokens[i + 1].value;
    if (name == "if" || name == "for" || name == "macro" || name == "call" || name == "filter" ||
        (name == "set" && IsSetBlock(tokens, i))) {
      levels.push_back(1);
      ++depth;
    } else if (name == "elif" && !levels.empty()) {
      ++levels.back();
      ++depth;
    } else if (name.rfind("end", 0) == 0 && name != "endgeneration" && !levels.empty()) {
      depth -= levels.back();
      levels.pop_back();
    }
    deepest = std::max(deepest, depth);
  }
  return deepest;
}

/// The parser recurses for brackets and blocks, the interpreter for whatever the parser nested.
Status CheckNesting(const std::vector<jinja::token>& tokens) {
  using Type = jinja::token::type;
  int brackets = 0, in_expression = 0;
  bool too_deep = BlockDepth(tokens) > kMaxNesting;
  for (const jinja::token& token : tokens) {
    ++in_expression;
    if (token.t == Type::open_statement || token.t == Type::open_expression || token.t == Type::text) {
      brackets = in_expression = 0;
    }
    brackets +=
        token.t == Type::open_paren || token.t == Type::open_square_bracket || token.t == Type::open_curly_bracket;
    too_deep = too_deep || brackets > static_cast<int>(kMaxNesting) || in_expression > kMaxTokensPerExpression;
    brackets -=
        token.t == Type::close_paren || token.t == Type::close_square_bracket || token.t == Type::close_curly_bracket;
  }
  return too_deep ? Status(StatusCode::kUnsupported, "the chat template is nested too deeply") : Status::Ok();
}

jinja::value Text(const std::string& text, bool from_message) {
  auto value = jinja::mk_val<jinja::value_string>(text);
  if (from_message) value->mark_input();
  return value;
}

/// Roles are words that templates build control tokens from ('<|' + role + '|>'), so the usual ones count as the
/// template's own text. Anything else that a client calls a role is text like any other.
bool IsUsualRole(const std::string& role) {
  static constexpr std::array<std::string_view, 8> kRoles = {"system", "user",     "assistant", "tool",
                                                             "model",  "function", "developer", "ipython"};
  for (const std::string_view usual : kRoles) {
    if (role == usual) return true;
  }
  return false;
}

jinja::value ValueOf(const common_json& json) {
  if (json.is_null()) return jinja::mk_val<jinja::value_none>();
  if (json.is_boolean()) return jinja::mk_val<jinja::value_bool>(json.get<bool>());
  if (json.is_number_integer()) return jinja::mk_val<jinja::value_int>(json.get<int64_t>());
  if (json.is_number_float()) return jinja::mk_val<jinja::value_float>(json.get<double>());
  if (json.is_string()) return Text(json.get<std::string>(), true);
  if (json.is_array()) {
    auto list = jinja::mk_val<jinja::value_array>();
    for (const auto& item : json) list->push_back(ValueOf(item));
    return list;
  }
  auto object = jinja::mk_val<jinja::value_object>();
  for (auto it = json.begin(); it != json.end(); ++it) object->insert(it.key(), ValueOf(it.value()));
  return object;
}

/// Throws what cannot be read, for the handler around everything that renders.
jinja::value JsonValue(const std::string& text) {
  if (ShapeOfJson(text).depth > kMaxJsonDepth) throw std::runtime_error("Error: JSON is nested too deeply");
  const common_json json = common_json::parse_no_throw(text);
  if (json.is_discarded()) throw std::runtime_error("Error: tools and arguments must be JSON");
  return ValueOf(json);
}

jinja::value MessageValue(const ChatMessage& message) {
  auto object = jinja::mk_val<jinja::value_object>();
  object->insert("role", Text(message.role, !IsUsualRole(message.role)));
  object->insert("content", Text(message.content, true));
  if (!message.tool_call_id.empty()) object->insert("tool_call_id", Text(message.tool_call_id, true));
  if (!message.name.empty()) object->insert("name", Text(message.name, true));
  if (message.tool_calls.empty()) return object;
  auto calls = jinja::mk_val<jinja::value_array>();
  for (const ToolCall& call : message.tool_calls) {
    auto function = jinja::mk_val<jinja::value_object>();
    function->insert("name", Text(call.name, true));
    function->insert("arguments", JsonValue(call.arguments));
    auto item = jinja::mk_val<jinja::value_object>();
    item->insert("id", Text(call.id, true));
    item->insert("type", Text("function", false));
    item->insert("function", function);
    calls->push_back(item);
  }
  object->insert("tool_calls", calls);
  return object;
}

jinja::value Range(const jinja::func_args& args) {
  args.ensure_count(1, 3);
  args.ensure_vals<jinja::value_int, jinja::value_int, jinja::value_int>(true, false, false);
  const int64_t first = args.count() == 1 ? 0 : args.get_pos(0)->as_int();
  const int64_t last = args.get_pos(args.count() == 1 ? 0 : 1)->as_int();
  const int64_t step = args.count() == 3 ? args.get_pos(2)->as_int() : 1;
  if (step == 0) throw jinja::raised_exception("range() step argument must not be zero");
  auto values = jinja::mk_val<jinja::value_array>();
  int64_t value = first;
  while (step > 0 ? value < last : value > last) {
    if (static_cast<int64_t>(values->as_array().size()) >= kMaxRange) {
      throw jinja::raised_exception("range() is too long");
    }
    values->push_back(jinja::mk_val<jinja::value_int>(value));
    if (__builtin_add_overflow(value, step, &value)) break;
  }
  return values;
}

/// As the engine's own, but safe to call from several threads.
jinja::value StrftimeNow(const jinja::func_args& args) {
  args.ensure_vals<jinja::value_string>();
  const std::string format = args.get_pos(0)->as_string().str();
  std::tm now{};
  localtime_r(&args.ctx.current_time, &now);
  char text[256];
  const size_t n = std::strftime(text, sizeof(text), format.c_str(), &now);
  if (n == 0) throw jinja::raised_exception("strftime_now: failed to format time");
  return jinja::mk_val<jinja::value_string>(std::string(text, n));
}

/// The engine wraps messages in where they came from; the last line is what the template itself said.
std::string OwnWords(const std::string& message) {
  const size_t error = message.rfind("Error: ");
  std::string words = error == std::string::npos ? message : message.substr(error + 7);
  const std::string raised = "Jinja Exception: ";
  if (words.rfind(raised, 0) == 0) words = words.substr(raised.size());
  return words.substr(0, 1000);
}

}  // namespace

struct ChatTemplate::State {
  std::string source;
  jinja::program program;
};

ChatTemplate::ChatTemplate() : state_(std::make_unique<State>()) {}
ChatTemplate::~ChatTemplate() = default;

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(const std::string& source) {
  if (source.size() > kMaxSourceBytes) return Status(StatusCode::kUnsupported, "the chat template is too long");
  std::unique_ptr<ChatTemplate> chat_template(new ChatTemplate());
  try {
    jinja::lexer lexer;
    const jinja::lexer_result tokens = lexer.tokenize(source);
    LS_RETURN_IF_ERROR(CheckNesting(tokens.tokens));
    chat_template->state_->source = tokens.source;
    chat_template->state_->program = jinja::parse_from_tokens(tokens);
    AddGuards(chat_template->state_->program.body);
  } catch (const std::exception& e) {
    return Status(StatusCode::kUnsupported, std::string("the chat template cannot be read: ") + e.what());
  }
  return chat_template;
}

Result<RenderedChat> ChatTemplate::Render(const ChatInput& input, const std::string& bos_text,
                                          const std::string& eos_text) const {
  const char here = 0;
  Budget budget;
  budget.stack_start = &here;
  Budget* const outer = current_budget;
  current_budget = &budget;
  Result<RenderedChat> result = Status(StatusCode::kInternal, "the chat template rendered nothing");
  try {
    jinja::context context(state_->source);
    auto list = jinja::mk_val<jinja::value_array>();
    for (const ChatMessage& message : input.messages) list->push_back(MessageValue(message));
    context.set_val("messages", list);
    if (!input.tools.empty()) context.set_val("tools", JsonValue(input.tools));
    context.set_val("bos_token", Text(bos_text, false));
    context.set_val("eos_token", Text(eos_text, false));
    context.set_val("add_generation_prompt", jinja::mk_val<jinja::value_bool>(input.add_generation_prompt));
    context.set_val("range", jinja::mk_val<jinja::value_func>("range", jinja::func_handler(Range)));
    context.set_val("strftime_now", jinja::mk_val<jinja::value_func>("strftime_now", jinja::func_handler(StrftimeNow)));

    jinja::runtime runtime(context);
    const jinja::value output = runtime.execute(state_->program);
    RenderedChat rendered;
    const jinja::value_string parts = jinja::runtime::gather_string_parts(output);
    for (const jinja::string_part& part : parts->val_str.parts) {
      rendered.text += part.val;
      rendered.from_template.resize(rendered.text.size(), !part.is_input);
    }
    result = std::move(rendered);
    if (result->text.size() > kMaxRenderedBytes) {
      result = Status(StatusCode::kInvalidArgument, "the rendered dialogue is too long");
    }
  } catch (const std::exception& e) {
    result = Status(StatusCode::kInvalidArgument, "the chat template says: " + OwnWords(e.what()));
  }
  current_budget = outer;
  return result;
}

}  // namespace loopserve
