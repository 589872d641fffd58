// The text that measurements run on: read from a file and checked, or made up of the model's own words; and the tokens
// that each run of the speed table takes of it. Thread rule: pure functions, but for ReadText, which reads a file.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/status.h"

namespace loopserve::bench {

/// kInvalidArgument for an empty text, NUL bytes (a binary file) and malformed UTF-8, with the byte offset.
Status ValidateText(std::string_view text);

/// Reads and validates a file. Errors: kNotFound, kIoError, and those of ValidateText, naming the file.
Result<std::string> ReadText(const std::string& path);

/// Repeats `tokens` until there are `count`, or cuts. Precondition: not empty.
std::vector<Token> RepeatTokens(std::span<const Token> tokens, size_t count);

/// `count` tokens of made-up text: words of the vocabulary in sentences, frequent ones far more often than rare ones.
/// The same vocabulary gives the same tokens. text_of: a token's text. kUnsupported if there are too few words.
Result<std::vector<Token>> SyntheticTokens(int n_vocab, const std::function<std::string(Token)>& text_of, size_t count);

/// A case of the speed table: new tokens on top of a context.
struct SpeedCase {
  int64_t context_tokens = 0;
  int64_t new_tokens = 0;
};

/// The tokens of one run: the context (and at least the text's first n_special tokens) are the same in every round, the
/// new tokens begin a little later in the text each time, so that no engine can have cached them in the round before.
/// text: at least SpeedTextTokens() tokens.
std::vector<Token> SpeedPrompt(std::span<const Token> text, const SpeedCase& speed_case, int64_t n_special, int round);
/// How many tokens of text `rounds` rounds of the case take.
int64_t SpeedTextTokens(const SpeedCase& speed_case, int rounds);

}  // namespace loopserve::bench
