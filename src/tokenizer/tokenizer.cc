#include "src/tokenizer/tokenizer.h"

#include "src/base/utf8.h"
#include "src/tokenizer/chat_template.h"
#include "src/tokenizer/held_prefix.h"
#include "src/tokenizer/vocab.h"

namespace loopserve {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;
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

/// Replaces every byte of control tokens' texts in the messages by another. False if there were none.
bool MaskControlTexts(const Vocab& vocab, std::vector<ChatMessage>* messages) {
  bool found = false;
  for (ChatMessage& message : *messages) {
    for (std::string* text : {&message.role, &message.content}) {
      for (const TextSpan& span : vocab.Split(*text, std::vector<bool>(text->size(), true))) {
        if (!vocab.IsControl(span.token)) continue;
        found = true;
        for (size_t i = span.begin; i < span.end; ++i) (*text)[i] = (*text)[i] == 'x' ? 'y' : 'x';
      }
    }
  }
  return found;
}

}  // namespace

struct Tokenizer::State {
  std::unique_ptr<Vocab> vocab;
  std::unique_ptr<ChatTemplate> chat_template;
  Status template_status = Status(StatusCode::kUnsupported, "the model has no chat template");
  bool has_chat_template = false;

  /// Appends the tokens of a text that was split into spans.
  Status AppendSpans(std::string_view text, const std::vector<TextSpan>& spans, std::vector<Token>* tokens) const;
  Result<RenderedChat> Render(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
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

Result<RenderedChat> Tokenizer::State::Render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  std::vector<ChatMessage> valid;
  size_t n_bytes = 0;
  for (const ChatMessage& message : messages) {
    n_bytes += message.content.size() + message.role.size();
    if (n_bytes > kMaxTextBytes) return Status(StatusCode::kInvalidArgument, "the dialogue is longer than 2^30 bytes");
    valid.push_back({Sanitized(message.role), Sanitized(message.content)});
  }
  const std::string bos = vocab->bos_text(), eos = vocab->eos_text();
  LS_ASSIGN_OR_RETURN(RenderedChat rendered, chat_template->Render(valid, add_generation_prompt, bos, eos));
  if (!MaskControlTexts(*vocab, &valid)) return rendered;

  // Somebody wrote the text of a control token. The engine's marks are lost in some of its functions (split, join,
  // tojson), so what comes from messages is found a second way: render without those texts, and see what is missing.
  LS_ASSIGN_OR_RETURN(const RenderedChat masked, chat_template->Render(valid, add_generation_prompt, bos, eos));
  if (masked.text.size() != rendered.text.size()) {
    return Status(StatusCode::kInvalidArgument,
                  "a message has the text of a control token, which changes what the chat template does");
  }
  for (size_t i = 0; i < rendered.text.size(); ++i) {
    if (masked.text[i] != rendered.text[i]) rendered.from_template[i] = false;
  }
  return rendered;
}

Result<std::vector<Token>> Tokenizer::RenderChat(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                                 std::span<const Token> held) const {
  if (!state_->chat_template) return state_->template_status;
  const Vocab& vocab = *state_->vocab;
  LS_ASSIGN_OR_RETURN(const RenderedChat rendered, state_->Render(messages, add_generation_prompt));
  const std::vector<TextSpan> spans = vocab.Split(rendered.text, rendered.from_template);
  std::vector<Token> tokens;
  const bool begins_with_bos = !spans.empty() && spans[0].token >= 0 && spans[0].token == vocab.added_bos();
  if (vocab.added_bos() >= 0 && !begins_with_bos) tokens.push_back(vocab.added_bos());
  const size_t n_added = tokens.size();
  LS_RETURN_IF_ERROR(state_->AppendSpans(rendered.text, spans, &tokens));
  if (held.empty()) return tokens;
  return PreferHeldTokens(vocab, {rendered.text, spans, tokens, n_added}, held);
}

}  // namespace loopserve
