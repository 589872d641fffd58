// Text as Python's str sees it: code points, lower(), split() and the word characters of re. The public metrics are
// Python programs, and scores are only comparable if ours cut and compare words as they do.
// Thread rule: pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace loopserve::eval {

/// Every byte that is not part of a well-formed character becomes U+FFFD.
std::u32string ToCodePoints(std::string_view utf8);

/// str.lower(): Unicode's full mapping, with the final form of sigma.
std::u32string Lower(std::u32string_view text);

/// str.isspace() of one character.
bool IsSpace(char32_t c);
/// Whether re's \w matches: letters and digits of all scripts, and the underscore.
bool IsWordCharacter(char32_t c);

/// str.split(): the runs between white space.
std::vector<std::u32string> SplitAtSpaces(std::u32string_view text);

}  // namespace loopserve::eval
