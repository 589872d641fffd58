#include "eval/unicode_text.h"

#include <algorithm>
#include <cstdint>
#include <span>

#include "eval/unicode_tables.h"
#include "src/base/utf8.h"

namespace loopserve::eval {
namespace {

constexpr char32_t kReplacement = 0xFFFD;
constexpr char32_t kCapitalSigma = 0x3A3;
constexpr char32_t kSigma = 0x3C3;
constexpr char32_t kFinalSigma = 0x3C2;
constexpr char32_t kCapitalIWithDot = 0x130;

bool Contains(std::span<const char32_t> boundaries, char32_t c) {
  return (std::upper_bound(boundaries.begin(), boundaries.end(), c) - boundaries.begin()) % 2 == 1;
}

bool IsCased(char32_t c) { return Contains({kCasedBoundaries, kCasedBoundariesCount}, c); }
bool IsIgnorable(char32_t c) { return Contains({kIgnorableBoundaries, kIgnorableBoundariesCount}, c); }

char32_t LowerOne(char32_t c) {
  const LowerRow* const end = kLowerRows + kLowerRowCount;
  const LowerRow* row = std::lower_bound(kLowerRows, end, c, [](const LowerRow& r, char32_t x) { return r.last < x; });
  if (row == end || c < row->first || (c - row->first) % static_cast<char32_t>(row->step) != 0) return c;
  return static_cast<char32_t>(static_cast<int64_t>(c) + row->delta);
}

/// Unicode's Final_Sigma: a cased letter stands before, none behind, ignorable characters (as apostrophes) aside.
bool EndsWord(std::u32string_view text, size_t position) {
  size_t before = position;
  while (before > 0 && IsIgnorable(text[before - 1])) --before;
  if (before == 0 || !IsCased(text[before - 1])) return false;
  size_t behind = position + 1;
  while (behind < text.size() && IsIgnorable(text[behind])) ++behind;
  return behind == text.size() || !IsCased(text[behind]);
}

/// The character of a well-formed sequence of `length` bytes.
char32_t Decode(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(bytes[i])); };
  if (bytes.size() == 1) return byte(0);
  char32_t c = byte(0) & (0xFFu >> (bytes.size() + 1));
  for (size_t i = 1; i < bytes.size(); ++i) c = c << 6 | (byte(i) & 0x3F);
  return c;
}

size_t LengthByLead(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace

std::u32string ToCodePoints(std::string_view utf8) {
  std::u32string points;
  points.reserve(utf8.size());
  while (!utf8.empty()) {
    const size_t valid = std::min(FindInvalidUtf8(utf8), utf8.size());
    for (size_t i = 0; i < valid;) {
      const size_t length = LengthByLead(utf8[i]);
      points.push_back(Decode(utf8.substr(i, length)));
      i += length;
    }
    utf8.remove_prefix(valid);
    if (utf8.empty()) break;
    points.push_back(kReplacement);
    utf8.remove_prefix(1);
  }
  return points;
}

std::u32string Lower(std::u32string_view text) {
  std::u32string lower;
  lower.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == kCapitalSigma) {
      lower.push_back(EndsWord(text, i) ? kFinalSigma : kSigma);
    } else if (text[i] == kCapitalIWithDot) {
      lower += U"i\u0307";
    } else {
      lower.push_back(LowerOne(text[i]));
    }
  }
  return lower;
}

bool IsSpace(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsWordCharacter(char32_t c) { return Contains({kWordBoundaries, kWordBoundariesCount}, c); }

std::vector<std::u32string> SplitAtSpaces(std::u32string_view text) {
  std::vector<std::u32string> words;
  for (size_t i = 0; i < text.size();) {
    while (i < text.size() && IsSpace(text[i])) ++i;
    size_t end = i;
    while (end < text.size() && !IsSpace(text[end])) ++end;
    if (end > i) words.emplace_back(text.substr(i, end - i));
    i = end;
  }
  return words;
}

}  // namespace loopserve::eval
