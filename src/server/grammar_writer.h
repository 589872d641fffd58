// Grammars as rules, written in llama.cpp's GBNF. What would make the grammar engine slow, or run for ever, is refused
// here: left recursion, repetitions of what may be empty, too many rules or alternatives. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "loopserve/status.h"

namespace loopserve::server {

/// Ranges of characters, ascending, apart from each other.
using CharRanges = std::vector<std::pair<uint32_t, uint32_t>>;

class GrammarWriter {
 public:
  static constexpr int kNoLimit = -1;
  static constexpr int kMaxRepeats = 2000;
  static constexpr size_t kMaxAllRepeats = 20'000;  ///< the grammar engine makes a rule of each
  static constexpr size_t kMaxRules = 10'000;
  static constexpr size_t kMaxBytes = 1 << 18;

  /// A text, a set of characters or another rule, so many times.
  struct Item {
    std::string text;
    CharRanges chars;
    int rule = -1;
    int min = 1, max = 1;
  };
  using Sequence = std::vector<Item>;

  static Item Text(std::string text) { return {std::move(text), {}, -1}; }
  static Item Chars(CharRanges chars, int min = 1, int max = 1) { return {"", std::move(chars), -1, min, max}; }
  static Item Rule(int rule, int min = 1, int max = 1) { return {"", {}, rule, min, max}; }

  int Add(std::vector<Sequence> alternatives);
  /// A rule that is defined later, so that rules may contain each other.
  int Reserve() { return Add({}); }
  void Define(int rule, std::vector<Sequence> alternatives) {
    rules_[static_cast<size_t>(rule)] = std::move(alternatives);
  }
  /// One of these texts (at least one); what they have in common at their beginnings is written once.
  int OneOf(std::vector<std::string> texts);
  size_t size() const { return rules_.size(); }

  /// GBNF with "root". kUnsupported says what keeps the grammar from being enforced.
  Result<std::string> Write(int root) const;

 private:
  Sequence OneOfSorted(const std::vector<std::string>& texts, size_t begin, size_t end, size_t done);
  std::vector<std::vector<Sequence>> rules_;
};

}  // namespace loopserve::server
