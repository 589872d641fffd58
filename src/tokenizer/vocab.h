// libllama's vocabulary, and the splitting of text at special tokens that has to happen before libllama sees it.
// Thread rule: const methods are thread-safe. Used by Tokenizer alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "llama.h"
#include "loopserve/engine.h"
#include "loopserve/status.h"
#include "src/gguf/gguf_file.h"

namespace loopserve {

/// A stretch of text: one special token, or bytes that no special token is in.
struct TextSpan {
  size_t begin = 0;
  size_t end = 0;
  Token token = -1;  ///< the special token spelled by these bytes; -1: ordinary text
};

class Vocab {
 public:
  /// Errors as Tokenizer::Load.
  static Result<std::unique_ptr<Vocab>> Load(const GgufFile& file);

  int n_tokens() const { return n_tokens_; }
  bool IsControl(Token token) const;
  bool IsEndOfText(Token token) const;
  /// The token that every text begins or ends with; -1 where the model wants none.
  Token added_bos() const { return added_bos_; }
  Token added_eos() const { return added_eos_; }
  /// Text of the begin- and end-of-text tokens, for templates; empty if there is none.
  std::string bos_text() const;
  std::string eos_text() const;
  /// Whether every ordinary span gets a space in front (some SPM vocabularies).
  bool add_space_prefix() const { return add_space_prefix_; }

  /// Bytes of one token, control tokens included; empty for ids outside the vocabulary.
  std::string Piece(Token token) const;

  /// Splits valid UTF-8 at special tokens, as libllama does: longer ones first, from left to right. Control tokens are
  /// only seen where all their bytes have `control_allowed` (one flag per byte; empty: nowhere).
  std::vector<TextSpan> Split(std::string_view text, const std::vector<bool>& control_allowed) const;

  /// Appends the tokens of one whole ordinary span (valid UTF-8).
  Status AppendTokens(std::string_view span, std::vector<Token>* tokens) const;

 private:
  struct ModelDeleter {
    void operator()(llama_model* model) const { llama_model_free(model); }
  };
  struct Special {
    std::string text;
    Token token;
    bool control;
  };

  Vocab() = default;
  void CollectSpecials();
  /// Throws what libllama throws.
  Status Tokenize(std::string_view text, std::vector<Token>* tokens) const;

  std::unique_ptr<llama_model, ModelDeleter> model_;
  const llama_vocab* vocab_ = nullptr;
  int n_tokens_ = 0;
  bool add_space_prefix_ = false;
  bool cut_long_runs_ = false;
  Token added_bos_ = -1;
  Token added_eos_ = -1;
  std::vector<Special> specials_;  ///< longest first
  /// Indices into specials_ of those that begin with a byte.
  std::vector<uint32_t> specials_by_first_byte_[256];
};

}  // namespace loopserve
