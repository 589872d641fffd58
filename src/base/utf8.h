// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. Thread rule: pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace loopserve {

/// Byte offset of the first byte that does not begin or continue a well-formed character; npos if all is well.
size_t FindInvalidUtf8(std::string_view text);

inline bool IsValidUtf8(std::string_view text) { return FindInvalidUtf8(text) == std::string_view::npos; }

/// Whether a byte goes on with a character that another one began.
inline bool IsUtf8Continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace loopserve
