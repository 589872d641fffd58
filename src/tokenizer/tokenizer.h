// Text to tokens and back, by libllama's vocabulary code (loaded without weights), the model's chat template, by
// llama.cpp's Jinja engine, and grammars over the vocabulary.
// Thread rule: const methods are thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/status.h"
#include "src/gguf/gguf_file.h"
#include "src/tokenizer/grammar.h"

namespace loopserve {

class Tokenizer {
 public:
  /// Checks the tokenizer's metadata in `file` and loads it. kCorruptData / kUnsupported say which key is wrong.
  static Result<std::unique_ptr<Tokenizer>> Load(const GgufFile& file);
  ~Tokenizer();

  int n_vocab() const;
  /// Errors: kInvalidArgument when the text is too long (over 2^30 bytes). Bad UTF-8 is tokenized byte by byte or
  /// replaced, as libllama does; it never fails.
  Result<std::vector<Token>> Encode(std::string_view text, bool add_special, bool parse_special) const;
  /// Bytes of one token; empty for control tokens unless show_special, and for ids outside the vocabulary.
  std::string Piece(Token token, bool show_special = false) const;
  std::string Decode(std::span<const Token> tokens, bool show_special = false) const;
  bool IsEndOfText(Token token) const;

  bool has_chat_template() const;
  /// Renders messages and tokenizes the result. Text that came from a message is tokenized with parse_special off, so
  /// it cannot become a control token. `held`: tokens that a session holds. Where their text is a prefix of the
  /// rendered text they are used as they are, so that an answer that tokenizes differently from how it was generated is
  /// still found in the cache; a held control token only matches text of the template itself. Errors: kUnsupported (no
  /// template), kInvalidArgument (the template's own message).
  Result<std::vector<Token>> RenderChat(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                        std::span<const Token> held = {}) const;
  /// The same in two steps, with tools; kInvalidArgument too where they, or a call's arguments, are not JSON.
  Result<RenderedPrompt> Render(const ChatInput& input) const;
  /// How the template writes tool calls; null where it does not, or in another form than ToolCallForm has. Found when
  /// it is first asked for.
  const ToolCallForm* tool_call_form() const;

  /// Errors: as GrammarMatcher::Create. This must outlive the matcher.
  Result<std::unique_ptr<GrammarMatcher>> NewMatcher(const std::string& gbnf, const std::string& control_texts) const;

 private:
  Tokenizer();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace loopserve
