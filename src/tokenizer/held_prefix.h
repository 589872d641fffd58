// Finds how much of a newly rendered dialogue is spelled by the tokens that a session already holds. An answer that was
// generated token by token may tokenize differently when its text comes back; taken as it was, its KV can be kept.
// Thread rule: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "loopserve/engine.h"
#include "src/tokenizer/vocab.h"

namespace loopserve {

/// A text split at special tokens, and how it is tokenized when nothing is held.
struct TokenizedText {
  std::string_view text;
  std::span<const TextSpan> spans;
  std::span<const Token> tokens;
  size_t n_added = 0;  ///< tokens at the start that are no part of the text: an added begin-of-text
};

/// `plain.tokens`, with as much of its start as possible replaced by tokens of `held` that spell the same text. A
/// special token only stands for a span of that token; an ordinary one only for bytes within an ordinary span. The
/// switch from held to plain tokens is made where both have a token's end, so that the rest is tokenized as if nothing
/// were held.
std::vector<Token> PreferHeldTokens(const Vocab& vocab, const TokenizedText& plain, std::span<const Token> held);

}  // namespace loopserve
