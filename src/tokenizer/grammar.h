// Which tokens may come next where an answer must follow a grammar: libllama's grammar engine (GBNF), over the pieces
// of our vocabulary. Time and memory are bounded: a grammar that could be at too many places at once is refused. Thread
// rule: GrammarVocab is thread-safe once made; a matcher has one owner.
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

class Vocab;

/// The characters of every token, decoded once for a vocabulary.
class GrammarVocab {
 public:
  GrammarVocab() = default;  ///< no tokens: for matching text alone
  explicit GrammarVocab(const Vocab& vocab);

  struct Entry {
    std::string bytes;
    std::vector<uint32_t> characters;  ///< whole ones, then a 0; empty where the bytes are not UTF-8 from their start
    uint32_t partial = 0;              ///< bits of a character that the piece ends within
    int n_missing = 0;                 ///< bytes that it lacks
    bool control = false;
    bool ends_text = false;
  };
  std::span<const Entry> entries() const { return entries_; }
  const Entry* Find(Token token) const {
    return token >= 0 && static_cast<size_t>(token) < entries_.size() ? &entries_[static_cast<size_t>(token)] : nullptr;
  }

 private:
  std::vector<Entry> entries_;
};

class GrammarMatcher {
 public:
  static constexpr size_t kMaxGrammarBytes = 1 << 20;
  /// Places where the grammar may be at once.
  static constexpr size_t kMaxStacks = 256;

  /// gbnf: in llama.cpp's form, with a rule "root". control_texts: control tokens may stand for their own texts where
  /// these are part of this text; others are never allowed. `vocab` must outlive this.
  /// Errors: kInvalidArgument (not a grammar, too large), kUnsupported (left recursion, too ambiguous; or this build
  /// has no grammars).
  static Result<std::unique_ptr<GrammarMatcher>> Create(const GrammarVocab& vocab, const std::string& gbnf,
                                                        const std::string& control_texts);
  ~GrammarMatcher();

  /// Whether the token may be next.
  bool Allows(Token token) const;
  /// Takes the token. kInvalidArgument where it is not allowed, kUnsupported where the grammar is at too many places
  /// now; the matcher is of no use then until Reset.
  Status Accept(Token token);
  /// The same for text. kInvalidArgument where the grammar has no such text.
  Status AcceptText(std::string_view text);
  /// Sets the logits of all tokens that are not allowed to minus infinity; the number of those that are.
  size_t Mask(std::span<float> logits) const;
  /// Whether the text so far is complete, and whether nothing may follow it.
  bool can_end() const;
  bool must_end() const;
  /// Back to the beginning.
  void Reset();

 private:
  GrammarMatcher();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace loopserve
