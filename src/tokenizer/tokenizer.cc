#include "src/tokenizer/tokenizer.h"

#include <exception>
#include <mutex>
#include <optional>

#include "json.h"
#include "src/base/json_nesting.h"
#include "src/base/utf8.h"
#include "src/tokenizer/chat_template.h"
#include "src/tokenizer/held_prefix.h"
#include "src/tokenizer/tool_call_form.h"
#include "src/tokenizer/vocab.h"

namespace loopserve {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;
constexpr int kMaxJsonDepth = 100;
constexpr char kTemplateKey[] = "tokenizer.chat_template";

/// Valid UTF-8: every malformed byte becomes U+FFFD.
std::string Sanitized(std::string_view text) {
  std::string sanitized;
  for (;;) {
    const size_t bad = FindInvalidUtf8(text);
    sanitized += text.substr(0, bad);
    if (bad == std::string_view::npos) return sanitized;
    sanitized += "\xEF\xBF\xBD";
    text.remove_prefix(bad + 1);
  }
}

/// JSON as it is written without escapes that are not needed, so that what it says can be seen in its bytes.
Result<std::string> PlainJson(const std::string& text, const char* what) {
  const Status wrong(StatusCode::kInvalidArgument, std::string(what) + " must be JSON, not nested deeply");
  if (ShapeOfJson(text).depth > kMaxJsonDepth) return wrong;
  try {
    return common_json::parse(text).dump_safe();
  } catch (const std::exception&) {
    return wrong;
  }
}

/// What clients wrote of a dialogue.
struct Written {
  std::vector<ChatMessage> messages;
  std::string tools;

  ChatInput Input(bool add_generation_prompt) const { return {messages, add_generation_prompt, tools}; }
};

Result<Written> ValidText(const ChatInput& input) {
  const Status too_long(StatusCode::kInvalidArgument, "the dialogue is longer than 2^30 bytes");
  Written written;
  size_t n_bytes = input.tools.size();
  for (const ChatMessage& message : input.messages) {
    n_bytes += message.content.size() + message.role.size() + message.tool_call_id.size() + message.name.size();
    for (const ToolCall& call : message.tool_calls)
      n_bytes += call.id.size() + call.name.size() + call.arguments.size();
    if (n_bytes > kMaxTextBytes) return too_long;
    ChatMessage valid{Sanitized(message.role),
                      Sanitized(message.content),
                      {},
                      Sanitized(message.tool_call_id),
                      Sanitized(message.name)};
    for (const ToolCall& call : message.tool_calls) {
      LS_ASSIGN_OR_RETURN(std::string arguments, PlainJson(call.arguments, "the arguments of a tool call"));
      valid.tool_calls.push_back({Sanitized(call.id), Sanitized(call.name), std::move(arguments)});
    }
    written.messages.push_back(std::move(valid));
  }
  if (!input.tools.empty()) {
    LS_ASSIGN_OR_RETURN(written.tools, PlainJson(input.tools, "tools"));
  }
  return written;
}

/// Replaces every byte of control tokens' texts in what clients wrote by another. False if there were none.
bool MaskControlTexts(const Vocab& vocab, Written* written) {
  bool found = false;
  const auto mask = [&](std::string& text) {
    for (const TextSpan& span : vocab.Split(text, std::vector<bool>(text.size(), true))) {
      if (!vocab.IsControl(span.token)) continue;
      found = true;
      for (size_t i = span.begin; i < span.end; ++i) text[i] = text[i] == 'x' ? 'y' : 'x';
    }
  };
  mask(written->tools);
  for (ChatMessage& message : written->messages) {
    for (std::string* text : {&message.role, &message.content, &message.tool_call_id, &message.name}) mask(*text);
    for (ToolCall& call : message.tool_calls) {
      for (std::string* text : {&call.id, &call.name, &call.arguments}) mask(*text);
    }
  }
  return found;
}

}  // namespace

struct Tokenizer::State {
  std::shared_ptr<Vocab> vocab;
  std::unique_ptr<ChatTemplate> chat_template;
  Status template_status = Status(StatusCode::kUnsupported, "the model has no chat template");
  bool has_chat_template = false;
  mutable std::once_flag form_found, grammar_vocab_made;
  mutable std::optional<ToolCallForm> form;
  mutable std::unique_ptr<GrammarVocab> grammar_vocab;

  /// Appends the tokens of a text that was split into spans.
  Status AppendSpans(std::string_view text, const std::vector<TextSpan>& spans, std::vector<Token>* tokens) const;
  Result<RenderedChat> Render(const ChatInput& input) const;
};

Status Tokenizer::State::AppendSpans(std::string_view text, const std::vector<TextSpan>& spans,
                                     std::vector<Token>* tokens) const {
  for (const TextSpan& span : spans) {
    if (span.token >= 0) {
      tokens->push_back(span.token);
    } else {
      LS_RETURN_IF_ERROR(vocab->AppendTokens(text.substr(span.begin, span.end - span.begin), tokens));
    }
  }
  return Status::Ok();
}

Tokenizer::Tokenizer() : state_(std::make_unique<State>()) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const GgufFile& file) {
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer());
  State& state = *tokenizer->state_;
  auto vocab = Vocab::Load(file);
  if (!vocab.ok()) return vocab.status().WithContext(file.path());
  state.vocab = std::move(vocab).value();
  const auto source = file.FindString(kTemplateKey);
  if (!source.ok()) return source.status().WithContext(file.path());
  if (source->has_value()) {
    // A template that cannot be read does not keep anyone from using the model without it.
    state.has_chat_template = true;
    auto chat_template = ChatTemplate::Parse(**source);
    state.template_status = chat_template.status();
    if (chat_template.ok()) state.chat_template = std::move(chat_template).value();
  }
  return tokenizer;
}

int Tokenizer::n_vocab() const { return state_->vocab->n_tokens(); }
bool Tokenizer::IsEndOfText(Token token) const { return state_->vocab->IsEndOfText(token); }
bool Tokenizer::has_chat_template() const { return state_->has_chat_template; }

Result<std::vector<Token>> Tokenizer::Encode(std::string_view text, bool add_special, bool parse_special) const {
  if (text.size() > kMaxTextBytes) return Status(StatusCode::kInvalidArgument, "the text is longer than 2^30 bytes");
  std::string sanitized;
  if (!IsValidUtf8(text)) text = sanitized = Sanitized(text);
  const Vocab& vocab = *state_->vocab;
  std::vector<Token> tokens;
  if (add_special && vocab.added_bos() >= 0) tokens.push_back(vocab.added_bos());
  const std::vector<TextSpan> spans = vocab.Split(text, std::vector<bool>(parse_special ? text.size() : 0, true));
  LS_RETURN_IF_ERROR(state_->AppendSpans(text, spans, &tokens));
  if (add_special && vocab.added_eos() >= 0) tokens.push_back(vocab.added_eos());
  return tokens;
}

std::string Tokenizer::Piece(Token token, bool show_special) const {
  if (!show_special && state_->vocab->IsControl(token)) return std::string();
  return state_->vocab->Piece(token);
}

std::string Tokenizer::Decode(std::span<const Token> tokens, bool show_special) const {
  std::string text;
  for (const Token token : tokens) text += Piece(token, show_special);
  return text;
}

Result<RenderedChat> Tokenizer::State::Render(const ChatInput& input) const {
  LS_ASSIGN_OR_RETURN(Written written, ValidText(input));
  const std::string bos = vocab->bos_text(), eos = vocab->eos_text();
  LS_ASSIGN_OR_RETURN(RenderedChat rendered,
                      chat_template->Render(written.Input(input.add_generation_prompt), bos, eos));
  if (!MaskControlTexts(*vocab, &written)) return rendered;

  // Somebody wrote the text of a control token. The engine's marks are lost in some of its functions (split, join,
  // tojson), so what comes from clients is found a second way: render without those texts, and see what is missing.
  LS_ASSIGN_OR_RETURN(const RenderedChat masked,
                      chat_template->Render(written.Input(input.add_generation_prompt), bos, eos));
  if (masked.text.size() != rendered.text.size()) {
    return Status(StatusCode::kInvalidArgument,
                  "a message has the text of a control token, which changes what the chat template does");
  }
  for (size_t i = 0; i < rendered.text.size(); ++i) {
    if (masked.text[i] != rendered.text[i]) rendered.from_template[i] = false;
  }
  return rendered;
}

/// A rendered text, how it is split, and its tokens.
struct RenderedPrompt::Text {
  std::shared_ptr<const Vocab> vocab;
  std::string text;
  std::vector<TextSpan> spans;
  std::vector<Token> tokens;
  size_t n_added = 0;
};

RenderedPrompt::RenderedPrompt(std::shared_ptr<const Text> text) : text_(std::move(text)) {}
std::span<const Token> RenderedPrompt::tokens() const { return text_->tokens; }

std::vector<Token> RenderedPrompt::With(std::span<const Token> held) const {
  if (held.empty()) return text_->tokens;
  return PreferHeldTokens(*text_->vocab, {text_->text, text_->spans, text_->tokens, text_->n_added}, held);
}

Result<RenderedPrompt> Tokenizer::Render(const ChatInput& input) const {
  if (!state_->chat_template) return state_->template_status;
  const Vocab& vocab = *state_->vocab;
  LS_ASSIGN_OR_RETURN(RenderedChat rendered, state_->Render(input));
  auto text = std::make_shared<RenderedPrompt::Text>();
  text->vocab = state_->vocab;
  text->spans = vocab.Split(rendered.text, rendered.from_template);
  text->text = std::move(rendered.text);
  const bool begins_with_bos =
      !text->spans.empty() && text->spans[0].token >= 0 && text->spans[0].token == vocab.added_bos();
  if (vocab.added_bos() >= 0 && !begins_with_bos) text->tokens.push_back(vocab.added_bos());
  text->n_added = text->tokens.size();
  LS_RETURN_IF_ERROR(state_->AppendSpans(text->text, text->spans, &text->tokens));
  return RenderedPrompt(std::move(text));
}

Result<std::vector<Token>> Tokenizer::RenderChat(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                                 std::span<const Token> held) const {
  LS_ASSIGN_OR_RETURN(const RenderedPrompt prompt, Render({messages, add_generation_prompt, ""}));
  return prompt.With(held);
}

const ToolCallForm* Tokenizer::tool_call_form() const {
  std::call_once(state_->form_found, [&] {
    if (!state_->chat_template) return;
    state_->form = FindToolCallForm(*state_->chat_template, state_->vocab->bos_text(), state_->vocab->eos_text());
  });
  return state_->form ? &*state_->form : nullptr;
}

Result<std::unique_ptr<GrammarMatcher>> Tokenizer::NewMatcher(const std::string& gbnf,
                                                              const std::string& control_texts) const {
  std::call_once(state_->grammar_vocab_made,
                 [&] { state_->grammar_vocab = std::make_unique<GrammarVocab>(*state_->vocab); });
  return GrammarMatcher::Create(*state_->grammar_vocab, gbnf, control_texts);
}

}  // namespace loopserve
