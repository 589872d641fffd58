#include "src/tokenizer/held_prefix.h"

#include <string>

namespace loopserve {
namespace {

/// Where each leading token ends in the text, as long as the tokens spell it. Positions count the spaces that the
/// vocabulary puts before ordinary spans, which are in the tokens but not in the text.
std::vector<size_t> TokenEnds(const Vocab& vocab, const TokenizedText& plain, std::span<const Token> tokens) {
  std::vector<size_t> ends;
  size_t position = 0;
  for (size_t i = 0; i < plain.n_added; ++i) {
    if (i >= tokens.size() || tokens[i] != plain.tokens[i]) return ends;
    ends.push_back(position);
  }
  size_t next = plain.n_added;
  for (const TextSpan& span : plain.spans) {
    if (span.token >= 0) {
      if (next == tokens.size() || tokens[next] != span.token) return ends;
      position += span.end - span.begin;
      ends.push_back(position);
      ++next;
      continue;
    }
    std::string spelled(vocab.add_space_prefix() ? " " : "");
    spelled += plain.text.substr(span.begin, span.end - span.begin);
    for (size_t done = 0; done < spelled.size(); ++next) {
      if (next == tokens.size() || vocab.IsControl(tokens[next])) return ends;
      const std::string piece = vocab.Piece(tokens[next]);
      if (piece.empty() || spelled.compare(done, piece.size(), piece) != 0) return ends;
      done += piece.size();
      position += piece.size();
      ends.push_back(position);
    }
  }
  return ends;
}

}  // namespace

std::vector<Token> PreferHeldTokens(const Vocab& vocab, const TokenizedText& plain, std::span<const Token> held) {
  const std::vector<size_t> held_ends = TokenEnds(vocab, plain, held);
  const std::vector<size_t> plain_ends = TokenEnds(vocab, plain, plain.tokens);
  size_t n_held = held_ends.size(), n_plain = plain_ends.size();
  while (n_held > 0 && n_plain > 0 && held_ends[n_held - 1] != plain_ends[n_plain - 1]) {
    if (held_ends[n_held - 1] > plain_ends[n_plain - 1]) {
      --n_held;
    } else {
      --n_plain;
    }
  }
  if (n_held == 0 || n_plain == 0) return {plain.tokens.begin(), plain.tokens.end()};
  std::vector<Token> tokens(held.begin(), held.begin() + static_cast<ptrdiff_t>(n_held));
  tokens.insert(tokens.end(), plain.tokens.begin() + static_cast<ptrdiff_t>(n_plain), plain.tokens.end());
  return tokens;
}

}  // namespace loopserve
