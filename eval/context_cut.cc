#include "eval/context_cut.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <numeric>

#include "src/base/utf8.h"

namespace loopserve::eval {
namespace {

constexpr int kMaxPassage = 10'000'000;  // beyond it a number is not read on

bool IsSpaceByte(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

size_t Distance(size_t a, size_t b) { return a > b ? a - b : b - a; }

/// The last position up to `at` that is not within a character.
size_t CharacterBegin(std::string_view text, size_t at) {
  while (at > 0 && at < text.size() && IsUtf8Continuation(text[at])) --at;
  return at;
}

bool BeginsPart(std::string_view line, std::string_view marker) {
  if (!line.starts_with(marker)) return false;
  if (marker != "Passage ") return true;
  size_t digits = marker.size();
  while (digits < line.size() && std::isdigit(static_cast<unsigned char>(line[digits])) != 0) ++digits;
  return digits > marker.size() && digits < line.size() && line[digits] == ':';
}

/// The occurrence of `seam` in [begin, end) nearest to `middle`, as the position behind it; npos if there is none.
size_t NearestSeam(std::string_view text, std::string_view seam, size_t begin, size_t end, size_t middle) {
  size_t best = std::string_view::npos;
  for (size_t at = text.find(seam, begin); at != std::string_view::npos && at + seam.size() <= end;
       at = text.find(seam, at + 1)) {
    const size_t behind = at + seam.size();
    if (best == std::string_view::npos || Distance(behind, middle) < Distance(best, middle)) best = behind;
  }
  return best;
}

/// A beginning (from_end: ending) of at most max_tokens, and nearly as many, in bytes.
size_t FittingBytes(std::string_view text, int64_t max_tokens, bool from_end, const CountTokens& count) {
  constexpr double kFirstBytesPerToken = 4;
  constexpr size_t kPrecisionBytes = 4;
  const auto piece = [&](size_t bytes) {
    if (!from_end) return text.substr(0, CharacterBegin(text, bytes));
    return text.substr(CharacterBegin(text, text.size() - bytes));
  };
  const int64_t slack = max_tokens / 128;
  size_t fits = 0;
  size_t fails = text.size() + 1;
  double guess = kFirstBytesPerToken * static_cast<double>(max_tokens);
  for (int round = 0; fits + kPrecisionBytes < fails; ++round) {
    // Tokens grow nearly in proportion to bytes, so the guess is good after a round or two; halving where it is not.
    constexpr int kGuesses = 6;
    const bool is_within = guess > static_cast<double>(fits) && guess < static_cast<double>(fails);
    const size_t bytes =
        round < kGuesses && is_within ? std::max(fits + 1, static_cast<size_t>(guess)) : fits + (fails - fits) / 2;
    const int64_t tokens = count(piece(std::min(bytes, text.size())));
    (tokens <= max_tokens ? fits : fails) = bytes;
    if (tokens <= max_tokens && tokens + slack >= max_tokens) break;
    guess = static_cast<double>(bytes) * (static_cast<double>(max_tokens) - static_cast<double>(slack) / 2) /
            static_cast<double>(std::max<int64_t>(1, tokens));
  }
  return std::min(fits, text.size());
}

/// Moves `at` back (forward: on) to white space if there is any within a word's length; else to a character.
size_t WordBorder(std::string_view text, size_t at, bool forward) {
  constexpr size_t kLongestWordBytes = 64;
  for (size_t i = 0; i < kLongestWordBytes; ++i) {
    const size_t candidate = forward ? at + i : at - i;
    if (candidate == 0 || candidate >= text.size()) break;
    if (IsSpaceByte(text[candidate])) return candidate;
    if (!forward && i == at) break;
  }
  while (forward && at < text.size() && IsUtf8Continuation(text[at])) ++at;
  return forward ? at : CharacterBegin(text, at);
}

}  // namespace

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return "";
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

int PassageNumber(std::string_view part) {
  constexpr std::string_view kMarker = "Passage ";
  if (!BeginsPart(part, kMarker)) return 0;
  int number = 0;
  for (size_t i = kMarker.size(); part[i] != ':' && number < kMaxPassage; ++i) number = number * 10 + (part[i] - '0');
  return number;
}

std::vector<std::string_view> SplitParts(std::string_view text, std::string_view marker) {
  std::vector<size_t> begins;
  if (!marker.empty()) {
    for (size_t line = 0; line < text.size();) {
      if (BeginsPart(text.substr(line), marker)) begins.push_back(line);
      const size_t end = text.find('\n', line);
      line = end == std::string_view::npos ? text.size() : end + 1;
    }
  }
  if (begins.empty()) return {text};
  begins.front() = 0;
  std::vector<std::string_view> parts;
  for (size_t i = 0; i < begins.size(); ++i) {
    const size_t end = i + 1 < begins.size() ? begins[i + 1] : text.size();
    parts.push_back(text.substr(begins[i], end - begins[i]));
  }
  return parts;
}

size_t MiddleBreak(std::string_view text, std::string_view marker) {
  const size_t middle = text.size() / 2;
  // A part that begins far from the middle would leave one half with next to nothing.
  const size_t part_reach = text.size() / 4;
  size_t best = std::string_view::npos;
  size_t at = 0;
  for (const std::string_view part : SplitParts(text, marker)) {
    at += part.size();
    if (at < middle - part_reach || at > middle + part_reach) continue;
    if (best == std::string_view::npos || Distance(at, middle) < Distance(best, middle)) best = at;
  }
  if (best != std::string_view::npos) return best;
  const size_t reach = text.size() / 10;
  for (const std::string_view seam : {"\n\n", "\n", ". ", " "}) {
    const size_t found = NearestSeam(text, seam, middle - reach, middle + reach, middle);
    if (found != std::string_view::npos) return found;
  }
  return CharacterBegin(text, middle);
}

CutText CutMiddle(std::string_view text, int64_t tokens, int64_t max_tokens, const CountTokens& count) {
  if (tokens <= max_tokens) return {std::string(text), 0};
  const int64_t half = std::max<int64_t>(0, max_tokens) / 2;
  const size_t head_bytes = WordBorder(text, FittingBytes(text, half, false, count), false);
  const size_t tail_bytes = FittingBytes(text, std::max<int64_t>(0, max_tokens) - half, true, count);
  const size_t tail_begin = std::max(head_bytes, WordBorder(text, text.size() - tail_bytes, true));
  const std::string_view head = Trimmed(text.substr(0, head_bytes));
  const std::string_view tail = Trimmed(text.substr(tail_begin));
  CutText cut;
  cut.text = std::string(head);
  if (!head.empty() && !tail.empty()) cut.text += "\n";
  cut.text += tail;
  cut.cut_tokens = std::max<int64_t>(1, tokens - count(cut.text));
  return cut;
}

std::vector<bool> DropMiddleParts(const std::vector<int64_t>& part_tokens, const std::vector<bool>& needed,
                                  int64_t max_tokens) {
  int64_t tokens = std::accumulate(part_tokens.begin(), part_tokens.end(), int64_t{0});
  std::vector<size_t> order(part_tokens.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Twice the distance to the middle, so that it is whole; of two equally near ones the earlier goes first.
  const auto distance = [&](size_t i) {
    return std::abs(static_cast<int64_t>(2 * i + 1) - static_cast<int64_t>(part_tokens.size()));
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return distance(a) < distance(b); });
  std::vector<bool> kept(part_tokens.size(), true);
  for (const size_t i : order) {
    if (tokens <= max_tokens) break;
    if (needed[i]) continue;
    kept[i] = false;
    tokens -= part_tokens[i];
  }
  return kept;
}

std::vector<bool> SplitOverTurns(const std::vector<bool>& needed) {
  const auto n_needed = static_cast<size_t>(std::count(needed.begin(), needed.end(), true));
  // Of an odd number the first turn gets one needed part more, and one other part less.
  const size_t first_needed = (n_needed + 1) / 2;
  const size_t first_others = (needed.size() - n_needed) / 2;
  size_t seen_needed = 0;
  size_t seen_others = 0;
  std::vector<bool> first;
  for (const bool is_needed : needed) {
    first.push_back(is_needed ? seen_needed < first_needed : seen_others < first_others);
    ++(is_needed ? seen_needed : seen_others);
  }
  return first;
}

}  // namespace loopserve::eval
