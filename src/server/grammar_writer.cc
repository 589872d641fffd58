#include "src/server/grammar_writer.h"

#include <algorithm>
#include <cstdio>

namespace loopserve::server {
namespace {

/// Ways to begin: more of them cost time with every token.
constexpr size_t kMaxBeginnings = 200;
/// Chains of rules that begin with each other; the grammar engine follows each of them when it reads a grammar.
constexpr size_t kMaxChains = 20'000;

bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == ' ' || c == '_' || c == ':';
}

std::string Literal(const std::string& text) {
  std::string literal = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || IsPlain(c)) {
      literal += c;
    } else {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\x%02X", byte);
      literal += escaped;
    }
  }
  return literal + "\"";
}

std::string CharName(uint32_t c) {
  if (c < 0x80 && IsPlain(static_cast<char>(c))) return std::string(1, static_cast<char>(c));
  char escaped[16];
  std::snprintf(escaped, sizeof(escaped), "\\U%08X", c);
  return escaped;
}

std::string CharClass(const CharRanges& chars) {
  std::string text = "[";
  for (const auto& [first, last] : chars) {
    text += CharName(first);
    if (last > first) text += "-" + CharName(last);
  }
  return text + "]";
}

std::string Times(int min, int max) {
  if (min == 1 && max == 1) return "";
  if (min == 0 && max == 1) return "?";
  if (max == GrammarWriter::kNoLimit && min <= 1) return min == 0 ? "*" : "+";
  return "{" + std::to_string(min) + "," + (max == GrammarWriter::kNoLimit ? "" : std::to_string(max)) + "}";
}

std::string RuleName(int rule, int root) { return rule == root ? "root" : "r" + std::to_string(rule); }

/// What is known of rules before they are given to the grammar engine.
class RuleCheck {
 public:
  explicit RuleCheck(const std::vector<std::vector<GrammarWriter::Sequence>>& rules)
      : rules_(rules), may_be_empty_(rules.size()), facts_(rules.size()) {}

  Status Run() {
    FindEmpty();
    for (size_t rule = 0; rule < rules_.size(); ++rule) {
      if (rules_[rule].empty()) return Status(StatusCode::kUnsupported, "it allows nothing at all");
      for (const auto& sequence : rules_[rule]) LS_RETURN_IF_ERROR(CheckRepeats(sequence));
    }
    for (size_t rule = 0; rule < rules_.size(); ++rule) LS_RETURN_IF_ERROR(Visit(rule));
    return Status::Ok();
  }

 private:
  struct Facts {
    enum { kUnknown, kInProgress, kKnown } state = kUnknown;
    size_t beginnings = 0, chains = 0;
  };

  bool MayBeEmpty(const GrammarWriter::Item& item) const {
    return item.min == 0 || (item.rule >= 0 && may_be_empty_[static_cast<size_t>(item.rule)]);
  }
  void FindEmpty() {
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t rule = 0; rule < rules_.size(); ++rule) {
        const bool empty = std::ranges::any_of(rules_[rule], [&](const auto& sequence) {
          return std::ranges::all_of(sequence, [&](const auto& item) { return MayBeEmpty(item); });
        });
        if (empty == may_be_empty_[rule]) continue;
        may_be_empty_[rule] = changed = true;
      }
    }
  }
  Status CheckRepeats(const GrammarWriter::Sequence& sequence) {
    for (const GrammarWriter::Item& item : sequence) {
      if (item.min > GrammarWriter::kMaxRepeats || item.max > GrammarWriter::kMaxRepeats) {
        return Status(StatusCode::kUnsupported,
                      "more than " + std::to_string(GrammarWriter::kMaxRepeats) + " repetitions cannot be enforced");
      }
      n_repeats_ += static_cast<size_t>(std::max({item.min, item.max, 1})) - 1;
      if (n_repeats_ > GrammarWriter::kMaxAllRepeats) {
        return Status(StatusCode::kUnsupported, "more than " + std::to_string(GrammarWriter::kMaxAllRepeats) +
                                                    " repetitions altogether cannot be enforced");
      }
      const bool repeats = item.max == GrammarWriter::kNoLimit || item.max > 1;
      if (repeats && item.rule >= 0 && may_be_empty_[static_cast<size_t>(item.rule)]) {
        return Status(StatusCode::kUnsupported, "a repetition of what may be empty cannot be enforced");
      }
    }
    return Status::Ok();
  }
  /// Recurses along what rules begin with: a chain of rules, which schemas nest kMaxJsonDepth deep, or references.
  Status Visit(size_t rule, int depth = 0) {
    Facts& facts = facts_[rule];
    if (facts.state == Facts::kKnown) return Status::Ok();
    if (facts.state == Facts::kInProgress || depth > kMaxDepth) {
      return Status(StatusCode::kUnsupported, "it contains itself without anything before");
    }
    facts.state = Facts::kInProgress;
    size_t beginnings = 0, chains = 1;
    for (const auto& sequence : rules_[rule]) {
      for (const GrammarWriter::Item& item : sequence) {
        if (item.rule < 0) {
          ++beginnings;
        } else {
          LS_RETURN_IF_ERROR(Visit(static_cast<size_t>(item.rule), depth + 1));
          beginnings += facts_[static_cast<size_t>(item.rule)].beginnings;
          chains += facts_[static_cast<size_t>(item.rule)].chains;
        }
        if (!MayBeEmpty(item)) break;
      }
    }
    if (beginnings > kMaxBeginnings || chains > kMaxChains) {
      return Status(StatusCode::kUnsupported, "it has too many alternatives in one place");
    }
    facts = {Facts::kKnown, beginnings, chains};
    return Status::Ok();
  }

  static constexpr int kMaxDepth = 1500;
  const std::vector<std::vector<GrammarWriter::Sequence>>& rules_;
  std::vector<bool> may_be_empty_;
  std::vector<Facts> facts_;
  size_t n_repeats_ = 0;
};

}  // namespace

int GrammarWriter::Add(std::vector<Sequence> alternatives) {
  rules_.push_back(std::move(alternatives));
  return static_cast<int>(rules_.size()) - 1;
}

int GrammarWriter::OneOf(std::vector<std::string> texts) {
  std::ranges::sort(texts);
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return Add({OneOfSorted(texts, 0, texts.size(), 0)});
}

/// The ends of texts [begin, end) after `done` bytes that they share.
GrammarWriter::Sequence GrammarWriter::OneOfSorted(const std::vector<std::string>& texts, size_t begin, size_t end,
                                                   size_t done) {
  const std::string &first = texts[begin], &last = texts[end - 1];
  size_t common = static_cast<size_t>(std::ranges::mismatch(first, last).in1 - first.begin());
  // Not within a character.
  while (common > done && common < last.size() && (static_cast<unsigned char>(last[common]) >> 6) == 2) --common;
  Sequence sequence;
  if (common > done) sequence.push_back(Text(first.substr(done, common - done)));
  if (begin + 1 == end) return sequence;
  std::vector<Sequence> alternatives;
  size_t from = begin;
  if (first.size() == common) {
    alternatives.emplace_back();
    ++from;
  }
  const auto character = [&](const std::string& text) {
    size_t length = 1;
    while (common + length < text.size() && (static_cast<unsigned char>(text[common + length]) >> 6) == 2) ++length;
    return text.substr(common, length);
  };
  while (from < end) {
    size_t to = from + 1;
    while (to < end && character(texts[to]) == character(texts[from])) ++to;
    alternatives.push_back(OneOfSorted(texts, from, to, common));
    from = to;
  }
  sequence.push_back(Rule(Add(std::move(alternatives))));
  return sequence;
}

Result<std::string> GrammarWriter::Write(int root) const {
  if (rules_.size() > kMaxRules) return Status(StatusCode::kUnsupported, "it is too large");
  LS_RETURN_IF_ERROR(RuleCheck(rules_).Run());
  std::string gbnf;
  for (size_t rule = 0; rule < rules_.size(); ++rule) {
    gbnf += RuleName(static_cast<int>(rule), root) + " ::= ";
    for (size_t i = 0; i < rules_[rule].size(); ++i) {
      if (i > 0) gbnf += " | ";
      for (size_t j = 0; j < rules_[rule][i].size(); ++j) {
        const Item& item = rules_[rule][i][j];
        if (j > 0) gbnf += ' ';
        if (item.rule >= 0) {
          gbnf += RuleName(item.rule, root);
        } else {
          gbnf += item.chars.empty() ? Literal(item.text) : CharClass(item.chars);
        }
        gbnf += Times(item.min, item.max);
      }
      if (rules_[rule][i].empty()) gbnf += "\"\"";
    }
    gbnf += '\n';
    if (gbnf.size() > kMaxBytes) return Status(StatusCode::kUnsupported, "it is too large");
  }
  return gbnf;
}

}  // namespace loopserve::server
