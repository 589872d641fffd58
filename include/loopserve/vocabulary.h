// The text side of a model alone: tokens and chat template, without its weights. Opening one takes a fraction of a
// second and little memory, where an Engine loads the model: for tools that count or cut text.
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

namespace loopserve {

class Tokenizer;

class Vocabulary {
 public:
  /// Reads a GGUF file's metadata. Errors: kNotFound, kIoError, kCorruptData, kUnsupported, with the path before them.
  static Result<std::unique_ptr<Vocabulary>> Open(const std::string& model_path);
  ~Vocabulary();

  /// As Engine::Tokenize, Engine::Detokenize and Engine::RenderChat.
  Result<std::vector<Token>> Tokenize(std::string_view text, bool add_special, bool parse_special) const;
  std::string Detokenize(std::span<const Token> tokens, bool show_special = false) const;
  Result<std::vector<Token>> RenderChat(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const;

  bool has_chat_template() const;
  /// The longest dialogue that the model was made for, in tokens; 0 where the file does not say.
  int64_t context_tokens() const { return context_tokens_; }

 private:
  Vocabulary(std::unique_ptr<Tokenizer> tokenizer, int64_t context_tokens);

  std::unique_ptr<Tokenizer> tokenizer_;
  int64_t context_tokens_;
};

}  // namespace loopserve
