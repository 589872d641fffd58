// Long contexts made to fit: cut in the middle as LongBench does, at a seam of the text where it has any, and split in
// two for a turn each. Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace loopserve::eval {

/// Tokens of a text. It is called often; the same text must give the same number.
using CountTokens = std::function<int64_t(std::string_view)>;

/// The passages or examples of a context: each begins on a line of its own with `marker`, which for "Passage " must go
/// on with a number and a colon. What stands before the first belongs to it. One part where there is no marker.
/// Together they are the text.
std::vector<std::string_view> SplitParts(std::string_view text, std::string_view marker);

/// N where the part begins with "Passage N:", else 0.
int PassageNumber(std::string_view part);

/// Without spaces, tabs and line ends at both ends.
std::string_view Trimmed(std::string_view text);

/// Where to break a text into two halves, in bytes: at the part nearest to the middle, if one begins in the middle
/// half; else at a paragraph, line, sentence or word near the middle, in this order. Never within a character.
size_t MiddleBreak(std::string_view text, std::string_view marker);

struct CutText {
  std::string text;
  int64_t cut_tokens = 0;
};

/// Keeps the beginning and the end, half of max_tokens each, at whole words. LongBench puts the halves together as they
/// are; here a line end is between them, so that two words do not become one. tokens: of the text; as a whole it is
/// long, and counted before.
CutText CutMiddle(std::string_view text, int64_t tokens, int64_t max_tokens, const CountTokens& count);

/// Which parts to keep of those with these sizes: parts nearest to the middle go first, needed ones never, until the
/// rest has at most max_tokens (or only needed ones are left).
std::vector<bool> DropMiddleParts(const std::vector<int64_t>& part_tokens, const std::vector<bool>& needed,
                                  int64_t max_tokens);

/// Which parts the first of two turns gets. The needed parts are divided evenly, and so are the others, each in their
/// order; without needed parts the first half of all. Where two parts or more are given, each turn gets at least one.
std::vector<bool> SplitOverTurns(const std::vector<bool>& needed);

}  // namespace loopserve::eval
