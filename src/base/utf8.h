// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. Thread rule: pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace loopserve {

/// Byte offset of the first byte that does not begin or continue a well-formed character; npos if all is well.
size_t FindInvalidUtf8(std::string_view text);

inline bool IsValidUtf8(std::string_view text) { return FindInvalidUtf8(text) == std::string_view::npos; }

}  // namespace loopserve
