#include "src/tokenizer/long_runs.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace loopserve {
namespace {

constexpr size_t kMaxRunCharacters = 2048;  // of some 500 bytes of stack each, times two for a match over two runs
constexpr size_t kPunctuationWindow = 256;  // characters to look back for a better place

bool IsSpace(std::string_view character) {
  const char first = character[0];
  if (first == ' ' || (first >= '\t' && first <= '\r')) return true;
  // U+00A0, U+2000 to U+200A, U+2028, U+2029, U+202F, U+3000 and the like: what looks empty to a person.
  return character == "\xC2\xA0" || character == "\xC2\x85" || character == "\xE3\x80\x80" ||
         (character.size() == 3 && character[0] == '\xE2' && character[1] == '\x80' &&
          (character[2] <= '\x8A' || character[2] == '\xA8' || character[2] == '\xA9' || character[2] == '\xAF'));
}

bool IsPunctuation(std::string_view character) {
  const uint8_t first = static_cast<uint8_t>(character[0]);
  if (character.size() == 1)
    return first > ' ' && first < 0x7f &&
           std::string_view(",.;:!?()[]{}<>/|").find(character[0]) != std::string_view::npos;
  // U+3001 to U+303F: CJK punctuation; U+FF01 to U+FF0F, U+FF1A, U+FF1B, U+FF1F: its full-width forms.
  if (character.size() != 3) return false;
  const uint8_t second = static_cast<uint8_t>(character[1]), third = static_cast<uint8_t>(character[2]);
  return (first == 0xe3 && second == 0x80 && third > 0x80) ||
         (first == 0xef && second == 0xbc && (third <= 0x8f || third == 0x9a || third == 0x9b || third == 0x9f));
}

size_t CharacterBytes(char first) {
  const uint8_t byte = static_cast<uint8_t>(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

}  // namespace

bool SplitsByStdRegex(const std::string& pre) {
  // Those that occur in the supported families and have hand-written splitters; all others are taken to have none.
  static constexpr std::array<std::string_view, 13> kHandWritten = {
      "llama-bpe", "llama3",    "llama-v3",         "falcon3", "gpt-2",     "smollm", "starcoder",
      "refact",    "command-r", "deepseek-r1-qwen", "qwen2",   "stablelm2", "megrez"};
  return std::find(kHandWritten.begin(), kHandWritten.end(), pre) == kHandWritten.end();
}

std::vector<std::string_view> CutLongRuns(std::string_view text) {
  std::vector<std::string_view> pieces;
  size_t piece_begin = 0, run_characters = 0;
  size_t punctuation = 0, since_punctuation = kPunctuationWindow;  // the last one in this run
  bool run_is_space = false;
  for (size_t i = 0; i < text.size();) {
    const std::string_view character = text.substr(i, CharacterBytes(text[i]));
    const bool is_space = IsSpace(character);
    if (is_space != run_is_space) {
      run_is_space = is_space;
      run_characters = 0;
      since_punctuation = kPunctuationWindow;
    }
    if (run_characters == kMaxRunCharacters) {
      const size_t cut = since_punctuation < kPunctuationWindow ? punctuation : i;
      run_characters = since_punctuation < kPunctuationWindow ? since_punctuation : 0;
      pieces.push_back(text.substr(piece_begin, cut - piece_begin));
      piece_begin = cut;
      since_punctuation = kPunctuationWindow;
    }
    if (IsPunctuation(character)) {
      punctuation = i;
      since_punctuation = 0;
    }
    ++since_punctuation;
    ++run_characters;
    i += character.size();
  }
  if (piece_begin < text.size()) pieces.push_back(text.substr(piece_begin));
  return pieces;
}

}  // namespace loopserve
