// Rules for JSON itself: values, texts, numbers, written in one line with one space after ':' and ','.
// Thread rule: one owner.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/server/grammar_writer.h"
#include "src/server/json_reader.h"

namespace loopserve::server {

/// Whole numbers that answers may have: of 15 digits, which doubles hold.
inline constexpr int64_t kMaxInteger = 999'999'999'999'999;

/// As answers write it: {"a": 1, "b": [true]}.
std::string OneLine(const JsonIn& value);

class JsonGrammar {
 public:
  explicit JsonGrammar(GrammarWriter& writer) : writer_(writer) {}

  /// Any value, nested kMaxNesting deep; objects and lists alone.
  int Value() { return ValueAt(0); }
  int Object() { return ObjectOf(Value()); }
  int Array() { return ArrayOf(Value(), 0, GrammarWriter::kNoLimit); }
  int String(int min_length = 0, int max_length = GrammarWriter::kNoLimit);
  int Number(bool may_be_negative);
  /// Both within kMaxInteger, min <= max.
  int Integer(std::optional<int64_t> min, std::optional<int64_t> max);
  int Constant(const std::string& json) { return writer_.Add({{GrammarWriter::Text(json)}}); }
  /// Objects of any keys with values of a rule; lists of items of a rule.
  int ObjectOf(int value);
  int ArrayOf(int item, int min_items, int max_items);
  /// One character within a text's quotes, out of a set: itself, or its escape.
  int CharacterOf(const CharRanges& chars);

 private:
  static constexpr int kMaxNesting = 12;
  int ValueAt(int depth);
  int AnyCharacter();

  GrammarWriter& writer_;
  std::vector<int> values_;  ///< by depth
  int any_character_ = -1;
};

/// All characters but surrogates and control characters that JSON has no short escape for.
const CharRanges& TextCharacters();
/// Those of the first that are in the second too; those of TextCharacters that are not in it.
CharRanges Intersection(const CharRanges& a, const CharRanges& b);
CharRanges Complement(const CharRanges& chars);
/// Sorted and merged.
CharRanges Normalized(CharRanges chars);

/// Sequences of digits for the whole numbers from min to max: none has a sign or a leading zero. 0 <= min <= max.
std::vector<GrammarWriter::Sequence> DigitRanges(uint64_t min, uint64_t max);

}  // namespace loopserve::server
