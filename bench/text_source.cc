#include "bench/text_source.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "src/base/check.h"
#include "src/base/utf8.h"

namespace loopserve::bench {
namespace {

constexpr int64_t kTokensBetweenRounds = 17;
constexpr size_t kMinWordLetters = 3;
constexpr size_t kMinWords = 8;
constexpr size_t kMaxWords = 8000;
constexpr int kWordsPerSentence = 14;

}  // namespace

Status ValidateText(std::string_view text) {
  if (text.empty()) return Status(StatusCode::kInvalidArgument, "the text is empty");
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return Status(StatusCode::kInvalidArgument,
                  "this is no text: there is a NUL byte at offset " + std::to_string(nul));
  }
  if (const size_t bad = FindInvalidUtf8(text); bad != std::string_view::npos) {
    return Status(StatusCode::kInvalidArgument, "the text is not UTF-8: see the byte at offset " + std::to_string(bad));
  }
  return Status::Ok();
}

Result<std::string> ReadText(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return Status(StatusCode::kNotFound, path + ": no such file");
  if (std::filesystem::is_directory(path, error)) return Status(StatusCode::kIoError, path + ": is a folder");
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file.is_open() || file.bad()) return Status(StatusCode::kIoError, path + ": cannot be read");
  LS_RETURN_IF_ERROR(ValidateText(text).WithContext(path));
  return text;
}

std::vector<Token> RepeatTokens(std::span<const Token> tokens, size_t count) {
  LS_CHECK(!tokens.empty());
  std::vector<Token> repeated;
  repeated.reserve(count);
  while (repeated.size() < count) {
    const size_t part = std::min(tokens.size(), count - repeated.size());
    repeated.insert(repeated.end(), tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(part));
  }
  return repeated;
}

Result<std::vector<Token>> SyntheticTokens(int n_vocab, const std::function<std::string(Token)>& text_of,
                                           size_t count) {
  std::vector<Token> words;
  Token period = -1;
  for (Token token = 0; token < n_vocab && words.size() < kMaxWords; ++token) {
    const std::string text = text_of(token);
    if (text == "." && period < 0) period = token;
    const size_t begin = text.starts_with(' ') ? 1 : 0;
    const bool is_word =
        text.size() - begin >= kMinWordLetters && std::all_of(text.begin() + static_cast<ptrdiff_t>(begin), text.end(),
                                                              [](char c) { return c >= 'a' && c <= 'z'; });
    if (is_word) words.push_back(token);
  }
  if (words.size() < kMinWords) {
    return Status(StatusCode::kUnsupported, "the model's vocabulary has too few words to make up a text: give --text");
  }
  // A fixed generator and no std::distribution: those differ between standard libraries.
  std::minstd_rand random(1);
  std::vector<Token> tokens;
  tokens.reserve(count);
  for (int in_sentence = 0; tokens.size() < count; ++in_sentence) {
    if (period >= 0 && in_sentence == kWordsPerSentence) {
      tokens.push_back(period);
      in_sentence = -1;
      continue;
    }
    const double uniform = static_cast<double>(random()) / static_cast<double>(std::minstd_rand::max());
    const auto rank = static_cast<size_t>(uniform * uniform * uniform * static_cast<double>(words.size()));
    tokens.push_back(words[std::min(rank, words.size() - 1)]);
  }
  return tokens;
}

std::vector<Token> SpeedPrompt(std::span<const Token> text, const SpeedCase& speed_case, int64_t n_special, int round) {
  const int64_t total = speed_case.context_tokens + speed_case.new_tokens;
  const int64_t same = std::min(std::max(speed_case.context_tokens, n_special), total);
  const int64_t shift = kTokensBetweenRounds * round;
  LS_CHECK(static_cast<int64_t>(text.size()) >= total + shift);
  std::vector<Token> prompt(text.begin(), text.begin() + same);
  prompt.insert(prompt.end(), text.begin() + same + shift, text.begin() + total + shift);
  return prompt;
}

int64_t SpeedTextTokens(const SpeedCase& speed_case, int rounds) {
  return speed_case.context_tokens + speed_case.new_tokens + kTokensBetweenRounds * rounds;
}

}  // namespace loopserve::bench
