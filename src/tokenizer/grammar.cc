#include "src/tokenizer/grammar.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "src/tokenizer/vocab.h"
#ifndef LOOPSERVE_WITHOUT_GRAMMARS
#include "llama-grammar.h"
#endif

namespace loopserve {
namespace {

/// A text's whole characters and what it ends within.
struct Decoded {
  std::vector<uint32_t> characters;
  uint32_t partial = 0;
  int n_missing = 0;
  std::string tail;  ///< the bytes of the character that has not ended
};

/// Whether `next` may be the second byte of a character: no overlong forms, surrogates, or numbers beyond U+10FFFF.
bool IsSecondByte(uint8_t first, uint8_t next) {
  if (first == 0xe0) return next >= 0xa0;
  if (first == 0xed) return next < 0xa0;
  if (first == 0xf0) return next >= 0x90;
  if (first == 0xf4) return next < 0x90;
  return true;
}

/// False where the bytes are no UTF-8, or have a character 0 (which the grammar engine ends at).
bool Decode(std::string_view text, Decoded* decoded) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<uint8_t>(text[i]);
    const int length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (length == 0 || first == 0) return false;
    uint32_t value = length == 1 ? first : first & (0x7fu >> length);
    int have = 1;
    for (; have < length && i + static_cast<size_t>(have) < text.size(); ++have) {
      const auto next = static_cast<uint8_t>(text[i + static_cast<size_t>(have)]);
      if ((next >> 6) != 2 || (have == 1 && !IsSecondByte(first, next))) return false;
      value = value << 6 | (next & 0x3fu);
    }
    if (have == length) {
      decoded->characters.push_back(value);
    } else {
      decoded->partial = value;
      decoded->n_missing = length - have;
      decoded->tail = text.substr(i);
    }
    i += static_cast<size_t>(have);
  }
  decoded->characters.push_back(0);
  return true;
}

}  // namespace

GrammarVocab::GrammarVocab(const Vocab& vocab) : entries_(static_cast<size_t>(vocab.n_tokens())) {
  for (Token token = 0; token < vocab.n_tokens(); ++token) {
    Entry& entry = entries_[static_cast<size_t>(token)];
    entry.bytes = vocab.Piece(token);
    entry.control = vocab.IsControl(token);
    entry.ends_text = vocab.IsEndOfText(token);
    Decoded decoded;
    if (entry.bytes.empty() || !Decode(entry.bytes, &decoded)) continue;
    entry.characters = std::move(decoded.characters);
    entry.partial = decoded.partial;
    entry.n_missing = decoded.n_missing;
  }
}

#ifdef LOOPSERVE_WITHOUT_GRAMMARS

struct GrammarMatcher::State {};
GrammarMatcher::GrammarMatcher() = default;
GrammarMatcher::~GrammarMatcher() = default;
Result<std::unique_ptr<GrammarMatcher>> GrammarMatcher::Create(const GrammarVocab&, const std::string&,
                                                               const std::string&) {
  return Status(StatusCode::kUnsupported, "this build uses an installed llama.cpp and has no grammars");
}
bool GrammarMatcher::Allows(Token) const { return false; }
Status GrammarMatcher::Accept(Token) { return Status(StatusCode::kInternal, "there is no grammar"); }
Status GrammarMatcher::AcceptText(std::string_view) { return Status(StatusCode::kInternal, "there is no grammar"); }
size_t GrammarMatcher::Mask(std::span<float>) const { return 0; }
bool GrammarMatcher::can_end() const { return false; }
bool GrammarMatcher::must_end() const { return false; }
void GrammarMatcher::Reset() {}

#else

namespace {

struct FreeGrammar {
  void operator()(llama_grammar* grammar) const { llama_grammar_free_impl(grammar); }
};
using GrammarPtr = std::unique_ptr<llama_grammar, FreeGrammar>;

bool MatchesFirst(const llama_grammar_stack& stack, uint32_t character) {
  if (stack.empty()) return false;
  const llama_grammar_element* at = stack.back();
  if (at->type == LLAMA_GRETYPE_CHAR_ANY) return true;
  const bool positive = at->type == LLAMA_GRETYPE_CHAR;
  bool found = false;
  do {
    if (at[1].type == LLAMA_GRETYPE_CHAR_RNG_UPPER) {
      found = found || (at->value <= character && character <= at[1].value);
      at += 2;
    } else {
      found = found || at->value == character;
      ++at;
    }
  } while (at->type == LLAMA_GRETYPE_CHAR_ALT);
  return found == positive;
}

}  // namespace

struct GrammarMatcher::State {
  const GrammarVocab* vocab = nullptr;
  GrammarPtr grammar;
  llama_grammar_stacks first_stacks;
  std::string pending;  ///< bytes of a character that has not ended
  std::string control_texts;

  llama_grammar_stacks& stacks() const { return llama_grammar_get_stacks(grammar.get()); }
  bool IsText(const GrammarVocab::Entry& entry) const {
    return !entry.bytes.empty() && (!entry.control || control_texts.find(entry.bytes) != std::string::npos);
  }
  /// Those of the candidates that no place of the grammar takes.
  llama_grammar_candidates Rejects(llama_grammar_candidates candidates) const {
    for (const llama_grammar_stack& stack : stacks()) {
      if (candidates.empty()) break;
      candidates = llama_grammar_reject_candidates_for_stack(grammar->rules, stack, candidates);
    }
    return candidates;
  }
  bool AllowsBytes(const std::string& bytes) const {
    Decoded decoded;
    if (!Decode(pending + bytes, &decoded)) return false;
    return Rejects({{0, decoded.characters.data(), {decoded.partial, decoded.n_missing}, 0}}).empty();
  }
  bool AllowsEntry(const GrammarVocab::Entry& entry) const {
    if (!pending.empty()) return AllowsBytes(entry.bytes);
    if (entry.characters.empty()) return false;
    return Rejects({{0, entry.characters.data(), {entry.partial, entry.n_missing}, 0}}).empty();
  }
  /// With no character pending: all at once. The first character alone rules most of them out.
  size_t MaskAll(std::span<float> logits) const;
};

size_t GrammarMatcher::State::MaskAll(std::span<float> logits) const {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  std::vector<int8_t> by_ascii(128, -1);
  const auto may_begin = [&](uint32_t character) {
    const auto any = [&] {
      return std::ranges::any_of(stacks(), [&](const auto& stack) { return MatchesFirst(stack, character); });
    };
    if (character >= by_ascii.size()) return any();
    if (by_ascii[character] < 0) by_ascii[character] = any() ? 1 : 0;
    return by_ascii[character] == 1;
  };
  llama_grammar_candidates candidates;
  const std::span<const GrammarVocab::Entry> entries = vocab->entries();
  size_t n_allowed = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const bool known = i < entries.size() && !entries[i].ends_text && IsText(entries[i]);
    const bool begins = known && !entries[i].characters.empty() &&
                        (entries[i].characters[0] == 0 || may_begin(entries[i].characters[0]));
    if (begins) {
      const GrammarVocab::Entry& entry = entries[i];
      candidates.push_back({i, entry.characters.data(), {entry.partial, entry.n_missing}, static_cast<llama_token>(i)});
    } else {
      logits[i] = kNever;
    }
  }
  n_allowed = candidates.size();
  for (const llama_grammar_candidate& rejected : Rejects(std::move(candidates))) {
    logits[rejected.index] = kNever;
    --n_allowed;
  }
  return n_allowed;
}

GrammarMatcher::GrammarMatcher() : state_(std::make_unique<State>()) {}
GrammarMatcher::~GrammarMatcher() = default;

Result<std::unique_ptr<GrammarMatcher>> GrammarMatcher::Create(const GrammarVocab& vocab, const std::string& gbnf,
                                                               const std::string& control_texts) {
  if (gbnf.size() > kMaxGrammarBytes) return Status(StatusCode::kInvalidArgument, "the grammar is too long");
  std::unique_ptr<GrammarMatcher> matcher(new GrammarMatcher());
  State& state = *matcher->state_;
  state.vocab = &vocab;
  state.control_texts = control_texts;
  try {
    state.grammar.reset(llama_grammar_init_impl(nullptr, gbnf.c_str(), "root", false, nullptr, 0, nullptr, 0));
  } catch (const std::exception& e) {
    return Status(StatusCode::kInvalidArgument, std::string("the grammar cannot be read: ") + e.what());
  }
  if (!state.grammar) return Status(StatusCode::kInvalidArgument, "the grammar cannot be read");
  if (state.stacks().size() > kMaxStacks) return Status(StatusCode::kUnsupported, "the grammar is too ambiguous");
  state.first_stacks = state.stacks();
  return matcher;
}

bool GrammarMatcher::Allows(Token token) const {
  const GrammarVocab::Entry* entry = state_->vocab->Find(token);
  if (entry == nullptr) return false;
  if (entry->ends_text) return can_end();
  return state_->IsText(*entry) && state_->AllowsEntry(*entry);
}

Status GrammarMatcher::Accept(Token token) {
  const GrammarVocab::Entry* entry = state_->vocab->Find(token);
  if (entry == nullptr) return Status(StatusCode::kInvalidArgument, "there is no such token");
  if (entry->ends_text) {
    return can_end() ? Status::Ok() : Status(StatusCode::kInvalidArgument, "the text must not end here");
  }
  return AcceptText(entry->bytes);
}

Status GrammarMatcher::AcceptText(std::string_view text) {
  Decoded decoded;
  if (!Decode(state_->pending + std::string(text), &decoded)) {
    return Status(StatusCode::kInvalidArgument, "the text is not valid UTF-8");
  }
  for (size_t i = 0; i + 1 < decoded.characters.size(); ++i) {
    llama_grammar_accept(state_->grammar.get(), decoded.characters[i]);
    if (state_->stacks().empty()) return Status(StatusCode::kInvalidArgument, "the grammar has no such text");
    if (state_->stacks().size() > kMaxStacks) {
      return Status(StatusCode::kUnsupported, "the form that was asked for is too ambiguous to be enforced");
    }
  }
  state_->pending = std::move(decoded.tail);
  return Status::Ok();
}

size_t GrammarMatcher::Mask(std::span<float> logits) const {
  size_t n_allowed = 0;
  const bool ends = can_end();
  std::vector<std::pair<size_t, float>> ending;  // those that end the text, as they were
  for (size_t i = 0; ends && i < std::min(logits.size(), state_->vocab->entries().size()); ++i) {
    if (state_->vocab->entries()[i].ends_text) ending.emplace_back(i, logits[i]);
  }
  if (state_->pending.empty()) {
    n_allowed = state_->MaskAll(logits);
  } else {
    for (size_t i = 0; i < logits.size(); ++i) {
      if (Allows(static_cast<Token>(i))) {
        ++n_allowed;
      } else {
        logits[i] = -std::numeric_limits<float>::infinity();
      }
    }
    return n_allowed;
  }
  for (const auto& [token, logit] : ending) logits[token] = logit;
  return n_allowed + ending.size();
}

bool GrammarMatcher::can_end() const {
  return state_->pending.empty() && std::ranges::any_of(state_->stacks(), [](const auto& s) { return s.empty(); });
}

bool GrammarMatcher::must_end() const {
  return can_end() && std::ranges::all_of(state_->stacks(), [](const auto& s) { return s.empty(); });
}

void GrammarMatcher::Reset() {
  state_->stacks() = state_->first_stacks;
  state_->pending.clear();
}

#endif

}  // namespace loopserve
