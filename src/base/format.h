// Numbers as people read them. Thread rule: pure functions; independent of the locale.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace loopserve {

/// "812 B", "93.8 MiB", "1.50 GiB": three significant digits, powers of 1024.
std::string FormatBytes(uint64_t bytes);
/// "7,168": a comma every three digits.
std::string FormatCount(int64_t count);
/// "0.8 ms", "412 ms", "3.42 s", "2 min 05 s", "1 h 02 min".
std::string FormatMilliseconds(double ms);
/// Line ends and other control characters become spaces: text of a file or a network, for one line of a terminal.
std::string OnOneLine(std::string_view text);
/// printf-like fixed notation: FormatFixed(3.14159, 2) is "3.14".
std::string FormatFixed(double value, int decimals);

}  // namespace loopserve
