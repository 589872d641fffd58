#include "src/server/json_pattern.h"

#include <algorithm>
#include <optional>

#include "src/base/utf8.h"

namespace loopserve::server {
namespace {

using Writer = GrammarWriter;

constexpr int kMaxGroups = 50;  // within each other
const CharRanges kDigit = {{'0', '9'}};
const CharRanges kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CharRanges kSpace = {{'\t', '\r'}, {' ', ' '}, {0xA0, 0xA0}, {0x2028, 0x2029}, {0xFEFF, 0xFEFF}};
const CharRanges kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

class PatternReader {
 public:
  PatternReader(const std::string& pattern, Writer& writer, JsonGrammar& json)
      : pattern_(pattern), at_(1), end_(pattern.size() - 1), writer_(writer), json_(json) {}

  Result<int> Read() {
    LS_ASSIGN_OR_RETURN(const int rule, Alternatives(0));
    if (at_ != end_) return Refused("')' without '('");
    return rule;
  }

 private:
  Status Refused(const std::string& what) const {
    return Status(StatusCode::kUnsupported, "the pattern " + pattern_ + " cannot be enforced: " + what);
  }
  bool Ends() const { return at_ >= end_; }
  char Peek() const { return pattern_[at_]; }

  Result<int> Alternatives(int depth) {
    if (depth > kMaxGroups) return Refused("its groups are nested too deeply");
    std::vector<Writer::Sequence> alternatives(1);
    while (!Ends() && Peek() != ')') {
      if (Peek() == '|') {
        ++at_;
        alternatives.emplace_back();
        continue;
      }
      LS_ASSIGN_OR_RETURN(Writer::Item item, Atom(depth));
      LS_RETURN_IF_ERROR(Repeats(&item));
      if (item.max != 0) alternatives.back().push_back(std::move(item));
    }
    return writer_.Add(std::move(alternatives));
  }

  Result<Writer::Item> Atom(int depth) {
    const char c = Peek();
    if (c == '(') return Group(depth);
    if (c == '^' || c == '$') return Refused("an anchor within it");
    if (c == '*' || c == '+' || c == '?' || c == '{') return Refused("nothing to repeat");
    if (c == '}' || c == ']') return Refused(std::string("a lone '") + c + "'");
    LS_ASSIGN_OR_RETURN(const CharRanges chars, Characters());
    const int rule = json_.CharacterOf(Intersection(chars, TextCharacters()));
    if (Intersection(chars, TextCharacters()).empty()) return Refused("a class of no characters");
    return Writer::Rule(rule);
  }

  Result<Writer::Item> Group(int depth) {
    ++at_;
    if (!Ends() && Peek() == '?') {
      if (at_ + 1 >= end_ || pattern_[at_ + 1] != ':') return Refused("groups of the kind (?...)");
      at_ += 2;
    }
    LS_ASSIGN_OR_RETURN(const int rule, Alternatives(depth + 1));
    if (Ends()) return Refused("'(' without ')'");
    ++at_;
    return Writer::Rule(rule);
  }

  /// What one place of the pattern may be: a character, a class, a dot.
  Result<CharRanges> Characters() {
    if (Peek() == '.') {
      ++at_;
      return Complement(kLineEnds);
    }
    if (Peek() == '[') return Class();
    if (Peek() == '\\') return Escape();
    const uint32_t c = NextCharacter();
    return CharRanges{{c, c}};
  }

  Result<CharRanges> Class() {
    ++at_;
    const bool negated = !Ends() && Peek() == '^';
    if (negated) ++at_;
    CharRanges chars;
    while (!Ends() && Peek() != ']') {
      LS_ASSIGN_OR_RETURN(const CharRanges first, ClassPart());
      const bool range = at_ + 1 < end_ && Peek() == '-' && pattern_[at_ + 1] != ']';
      if (!range) {
        chars.insert(chars.end(), first.begin(), first.end());
        continue;
      }
      ++at_;
      LS_ASSIGN_OR_RETURN(const CharRanges last, ClassPart());
      const auto single = [](const CharRanges& c) { return c.size() == 1 && c[0].first == c[0].second; };
      if (!single(first) || !single(last) || first[0].first > last[0].first) return Refused("a wrong range in a class");
      chars.emplace_back(first[0].first, last[0].first);
    }
    if (Ends()) return Refused("'[' without ']'");
    ++at_;
    return negated ? Complement(chars) : Normalized(std::move(chars));
  }

  Result<CharRanges> ClassPart() {
    if (Peek() == '\\') return Escape();
    if (Peek() == '[') return Refused("'[' within a class");
    const uint32_t c = NextCharacter();
    return CharRanges{{c, c}};
  }

  Result<CharRanges> Escape() {
    if (++at_ >= end_) return Refused("a lone backslash");
    const char c = pattern_[at_++];
    switch (c) {
      case 'd':
        return kDigit;
      case 'w':
        return kWord;
      case 's':
        return kSpace;
      case 'D':
        return Complement(kDigit);
      case 'W':
        return Complement(kWord);
      case 'S':
        return Complement(kSpace);
      case 'n':
        return CharRanges{{'\n', '\n'}};
      case 'r':
        return CharRanges{{'\r', '\r'}};
      case 't':
        return CharRanges{{'\t', '\t'}};
      case 'x':
        return Hex(2);
      case 'u':
        return Hex(4);
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter || static_cast<unsigned char>(c) >= 0x80)
      return Refused(std::string("the escape \\") + (letter ? c : '?'));
    const auto character = static_cast<uint32_t>(c);
    return CharRanges{{character, character}};
  }

  Result<CharRanges> Hex(size_t n_digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < n_digits; ++i, ++at_) {
      const char c = Ends() ? '\0' : Peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return Refused("a wrong number after \\x or \\u");
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    return CharRanges{{value, value}};
  }

  /// The pattern is valid UTF-8.
  uint32_t NextCharacter() {
    const auto first = static_cast<unsigned char>(pattern_[at_++]);
    const int more = first < 0x80 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
    uint32_t value = more == 0 ? first : first & (0x3Fu >> more);
    for (int i = 0; i < more; ++i) value = value << 6 | (static_cast<unsigned char>(pattern_[at_++]) & 0x3Fu);
    return value;
  }

  Status Repeats(Writer::Item* item) {
    if (Ends()) return Status::Ok();
    const char c = Peek();
    if (c == '*' || c == '+' || c == '?') {
      item->min = c == '+' ? 1 : 0;
      item->max = c == '?' ? 1 : Writer::kNoLimit;
      ++at_;
    } else if (c == '{') {
      ++at_;
      LS_RETURN_IF_ERROR(Counts(item));
    } else {
      return Status::Ok();
    }
    // A lazy repetition matches the same texts.
    if (!Ends() && Peek() == '?') ++at_;
    if (!Ends() && (Peek() == '*' || Peek() == '+' || Peek() == '?' || Peek() == '{'))
      return Refused("a repeated repetition");
    return Status::Ok();
  }

  Status Counts(Writer::Item* item) {
    const auto number = [&]() -> std::optional<int> {
      int value = 0;
      const size_t from = at_;
      while (!Ends() && Peek() >= '0' && Peek() <= '9' && value <= Writer::kMaxRepeats)
        value = value * 10 + (pattern_[at_++] - '0');
      return at_ == from || value > Writer::kMaxRepeats ? std::nullopt : std::optional(value);
    };
    const std::optional<int> min = number();
    if (!min) return Refused("a wrong or large number of repetitions");
    item->min = item->max = *min;
    if (!Ends() && Peek() == ',') {
      ++at_;
      item->max = Writer::kNoLimit;
      if (!Ends() && Peek() != '}') {
        const std::optional<int> max = number();
        if (!max || *max < *min) return Refused("a wrong or large number of repetitions");
        item->max = *max;
      }
    }
    if (Ends() || Peek() != '}') return Refused("'{' without '}'");
    ++at_;
    return Status::Ok();
  }

  const std::string& pattern_;
  size_t at_, end_;
  Writer& writer_;
  JsonGrammar& json_;
};

}  // namespace

Result<int> PatternRule(const std::string& pattern, GrammarWriter& writer, JsonGrammar& json) {
  if (pattern.size() > kMaxPatternBytes) {
    return Status(StatusCode::kUnsupported,
                  "patterns of more than " + std::to_string(kMaxPatternBytes) + " bytes are not supported");
  }
  if (!IsValidUtf8(pattern)) return Status(StatusCode::kInvalidArgument, "a pattern is not valid UTF-8");
  size_t backslashes = 0;
  while (pattern.size() > 1 + backslashes && pattern[pattern.size() - 2 - backslashes] == '\\') ++backslashes;
  if (pattern.size() < 2 || pattern.front() != '^' || pattern.back() != '$' || backslashes % 2 == 1) {
    return Status(StatusCode::kUnsupported,
                  "the pattern " + pattern + " cannot be enforced: it does not begin with ^ and end with $");
  }
  LS_ASSIGN_OR_RETURN(const int inner, PatternReader(pattern, writer, json).Read());
  return writer.Add({{Writer::Text("\""), Writer::Rule(inner), Writer::Text("\"")}});
}

}  // namespace loopserve::server
