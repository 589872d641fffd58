#include "src/server/json_grammar.h"

#include <algorithm>

namespace loopserve::server {
namespace {

using Writer = GrammarWriter;

constexpr uint32_t kLastCharacter = 0x10FFFF;
const CharRanges kDigits = {{'0', '9'}};
/// Digits of a number: more than a double holds mean nothing, and models do not end them.
constexpr int kMaxDigits = 15;

struct Escape {
  uint32_t character;
  const char* text;
};
constexpr Escape kEscapes[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'\b', "\\b"}, {'\f', "\\f"},
                               {'\n', "\\n"}, {'\r', "\\r"},  {'\t', "\\t"}};

bool Contains(const CharRanges& chars, uint32_t character) {
  return std::ranges::any_of(chars, [&](const auto& r) { return r.first <= character && character <= r.second; });
}

/// What stands for itself within quotes.
const CharRanges& PlainCharacters() {
  static const CharRanges ranges = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x7E}, {0x80, 0xD7FF}, {0xE000, kLastCharacter}};
  return ranges;
}

}  // namespace

const CharRanges& TextCharacters() {
  static const CharRanges ranges = [] {
    CharRanges all = PlainCharacters();
    for (const Escape& escape : kEscapes) all.emplace_back(escape.character, escape.character);
    return Normalized(std::move(all));
  }();
  return ranges;
}

CharRanges Normalized(CharRanges chars) {
  std::ranges::sort(chars);
  CharRanges merged;
  for (const auto& range : chars) {
    if (!merged.empty() && range.first <= merged.back().second + 1) {
      merged.back().second = std::max(merged.back().second, range.second);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

CharRanges Intersection(const CharRanges& a, const CharRanges& b) {
  CharRanges both;
  for (const auto& x : a) {
    for (const auto& y : b) {
      const uint32_t first = std::max(x.first, y.first), last = std::min(x.second, y.second);
      if (first <= last) both.emplace_back(first, last);
    }
  }
  return Normalized(std::move(both));
}

CharRanges Complement(const CharRanges& chars) {
  CharRanges rest;
  uint32_t next = 0;
  for (const auto& [first, last] : Normalized(chars)) {
    if (first > next) rest.emplace_back(next, first - 1);
    next = last + 1;
  }
  if (next <= kLastCharacter) rest.emplace_back(next, kLastCharacter);
  return Intersection(rest, TextCharacters());
}

std::string OneLine(const JsonIn& value) {
  const auto join = [](const auto& items, const auto& write) {
    std::string text;
    for (auto it = items.begin(); it != items.end(); ++it) text += (it == items.begin() ? "" : ", ") + write(it);
    return text;
  };
  if (value.is_object()) {
    return "{" + join(value, [](const auto& it) { return ToText(Json(it.key())) + ": " + OneLine(it.value()); }) + "}";
  }
  if (value.is_array()) return "[" + join(value, [](const auto& it) { return OneLine(*it); }) + "]";
  return ToText(value);
}

int JsonGrammar::CharacterOf(const CharRanges& chars) {
  std::vector<Writer::Sequence> alternatives;
  const CharRanges plain = Intersection(chars, PlainCharacters());
  if (!plain.empty()) alternatives.push_back({Writer::Chars(plain)});
  for (const Escape& escape : kEscapes) {
    if (Contains(chars, escape.character)) alternatives.push_back({Writer::Text(escape.text)});
  }
  return writer_.Add(std::move(alternatives));
}

int JsonGrammar::AnyCharacter() {
  if (any_character_ < 0) any_character_ = CharacterOf(TextCharacters());
  return any_character_;
}

int JsonGrammar::String(int min_length, int max_length) {
  Writer::Sequence text = {Writer::Text("\"")};
  if (max_length != 0) text.push_back(Writer::Rule(AnyCharacter(), min_length, max_length));
  text.push_back(Writer::Text("\""));
  return writer_.Add({std::move(text)});
}

int JsonGrammar::Number(bool may_be_negative) {
  const int whole =
      writer_.Add({{Writer::Text("0")}, {Writer::Chars({{'1', '9'}}), Writer::Chars(kDigits, 0, kMaxDigits)}});
  const int fraction = writer_.Add({{Writer::Text("."), Writer::Chars(kDigits, 1, kMaxDigits)}});
  const int exponent = writer_.Add({{Writer::Chars({{'E', 'E'}, {'e', 'e'}}),
                                     Writer::Chars({{'+', '+'}, {'-', '-'}}, 0, 1), Writer::Chars(kDigits, 1, 2)}});
  Writer::Sequence number;
  if (may_be_negative) number.push_back(Writer::Chars({{'-', '-'}}, 0, 1));
  number.push_back(Writer::Rule(whole));
  number.push_back(Writer::Rule(fraction, 0, 1));
  number.push_back(Writer::Rule(exponent, 0, 1));
  return writer_.Add({std::move(number)});
}

int JsonGrammar::Integer(std::optional<int64_t> min, std::optional<int64_t> max) {
  const int64_t first = min.value_or(-kMaxInteger), last = max.value_or(kMaxInteger);
  std::vector<Writer::Sequence> alternatives;
  if (first < 0) {
    const auto from = static_cast<uint64_t>(last < 0 ? -last : int64_t{1}), to = static_cast<uint64_t>(-first);
    for (Writer::Sequence& digits : DigitRanges(from, to)) {
      digits.insert(digits.begin(), Writer::Text("-"));
      alternatives.push_back(std::move(digits));
    }
  }
  if (last >= 0) {
    for (Writer::Sequence& digits :
         DigitRanges(static_cast<uint64_t>(std::max<int64_t>(first, 0)), static_cast<uint64_t>(last))) {
      alternatives.push_back(std::move(digits));
    }
  }
  return writer_.Add(std::move(alternatives));
}

std::vector<Writer::Sequence> DigitRanges(uint64_t min, uint64_t max) {
  std::vector<Writer::Sequence> ranges;
  const auto digit = [](uint64_t from, uint64_t to) {
    return Writer::Chars({{static_cast<uint32_t>('0' + from), static_cast<uint32_t>('0' + to)}});
  };
  // Cuts [min, max] into pieces in which a prefix is fixed, one digit has a range and all others are free.
  while (min <= max) {
    uint64_t step = 1;
    int free_digits = 0;
    // A piece has numbers of one length: the digit with a range is the first one at the most.
    while (min % (step * 10) == 0 && min != 0 && min + step * 10 - 1 <= max) {
      step *= 10;
      ++free_digits;
    }
    const uint64_t ranged = min / step % 10;
    uint64_t up = 0;
    while (ranged + up < 9 && min + (up + 2) * step - 1 <= max) ++up;
    Writer::Sequence piece;
    if (const uint64_t prefix = min / step / 10; prefix > 0) piece.push_back(Writer::Text(std::to_string(prefix)));
    piece.push_back(digit(ranged, ranged + up));
    if (free_digits > 0) piece.push_back(Writer::Chars(kDigits, free_digits, free_digits));
    ranges.push_back(std::move(piece));
    min += (up + 1) * step;
  }
  return ranges;
}

int JsonGrammar::ObjectOf(int value) {
  const int key = String();
  const int member = writer_.Add({{Writer::Rule(key), Writer::Text(": "), Writer::Rule(value)}});
  const int more = writer_.Add({{Writer::Text(", "), Writer::Rule(member)}});
  return writer_.Add(
      {{Writer::Text("{}")},
       {Writer::Text("{"), Writer::Rule(member), Writer::Rule(more, 0, Writer::kNoLimit), Writer::Text("}")}});
}

int JsonGrammar::ArrayOf(int item, int min_items, int max_items) {
  std::vector<Writer::Sequence> alternatives;
  if (min_items == 0) alternatives.push_back({Writer::Text("[]")});
  if (max_items != 0) {
    const int more = writer_.Add({{Writer::Text(", "), Writer::Rule(item)}});
    Writer::Sequence items = {Writer::Text("["), Writer::Rule(item)};
    const int max_more = max_items == Writer::kNoLimit ? Writer::kNoLimit : max_items - 1;
    if (max_more != 0) items.push_back(Writer::Rule(more, std::max(0, min_items - 1), max_more));
    items.push_back(Writer::Text("]"));
    alternatives.push_back(std::move(items));
  }
  return writer_.Add(std::move(alternatives));
}

int JsonGrammar::ValueAt(int depth) {
  while (values_.size() <= static_cast<size_t>(depth)) values_.push_back(-1);
  if (values_[static_cast<size_t>(depth)] >= 0) return values_[static_cast<size_t>(depth)];
  std::vector<Writer::Sequence> kinds = {{Writer::Rule(String())},
                                         {Writer::Rule(Number(true))},
                                         {Writer::Text("true")},
                                         {Writer::Text("false")},
                                         {Writer::Text("null")}};
  if (depth < kMaxNesting) {
    const int inner = ValueAt(depth + 1);
    kinds.push_back({Writer::Rule(ObjectOf(inner))});
    kinds.push_back({Writer::Rule(ArrayOf(inner, 0, Writer::kNoLimit))});
  }
  const int value = writer_.Add(std::move(kinds));
  values_[static_cast<size_t>(depth)] = value;
  return value;
}

}  // namespace loopserve::server
