#include "loopserve/vocabulary.h"

#include <utility>

#include "src/gguf/gguf_file.h"
#include "src/tokenizer/tokenizer.h"

namespace loopserve {
namespace {

struct TextSide {
  std::unique_ptr<Tokenizer> tokenizer;
  int64_t context_tokens = 0;
};

Result<TextSide> LoadTextSide(const std::string& model_path) {
  LS_ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(model_path));
  TextSide text;
  LS_ASSIGN_OR_RETURN(text.tokenizer, Tokenizer::Load(*file));
  LS_ASSIGN_OR_RETURN(const auto context, file->FindUint(file->Architecture() + ".context_length"));
  constexpr uint64_t kMaxContextTokens = uint64_t{1} << 40;  // beyond it the file is wrong, and int64_t is safe below
  if (context && *context <= kMaxContextTokens) text.context_tokens = static_cast<int64_t>(*context);
  return text;
}

}  // namespace

Vocabulary::Vocabulary(std::unique_ptr<Tokenizer> tokenizer, int64_t context_tokens)
    : tokenizer_(std::move(tokenizer)), context_tokens_(context_tokens) {}
Vocabulary::~Vocabulary() = default;

Result<std::unique_ptr<Vocabulary>> Vocabulary::Open(const std::string& model_path) {
  Result<TextSide> text = LoadTextSide(model_path);
  if (!text.ok()) {
    const bool named = text.status().message().find(model_path) != std::string::npos;
    return named ? text.status() : text.status().WithContext(model_path);
  }
  return std::unique_ptr<Vocabulary>(new Vocabulary(std::move(text->tokenizer), text->context_tokens));
}

Result<std::vector<Token>> Vocabulary::Tokenize(std::string_view text, bool add_special, bool parse_special) const {
  return tokenizer_->Encode(text, add_special, parse_special);
}

std::string Vocabulary::Detokenize(std::span<const Token> tokens, bool show_special) const {
  return tokenizer_->Decode(tokens, show_special);
}

Result<std::vector<Token>> Vocabulary::RenderChat(std::span<const ChatMessage> messages,
                                                  bool add_generation_prompt) const {
  return tokenizer_->RenderChat(messages, add_generation_prompt);
}

bool Vocabulary::has_chat_template() const { return tokenizer_->has_chat_template(); }

}  // namespace loopserve
