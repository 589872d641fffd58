#include "src/base/format.h"

#include <charconv>
#include <cmath>
#include <iterator>

namespace loopserve {
namespace {

std::string TwoDigits(int64_t value) { return (value < 10 ? "0" : "") + std::to_string(value); }

// Decimals that leave three significant digits of a value in [1, 1000).
int DecimalsFor(double value) { return value < 9.995 ? 2 : value < 99.95 ? 1 : 0; }

}  // namespace

std::string FormatFixed(double value, int decimals) {
  char buffer[400];  // a double has at most 309 digits before the point
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed, decimals);
  return error == std::errc() ? std::string(buffer, end) : std::string("?");
}

std::string OnOneLine(std::string_view text) {
  std::string line(text);
  for (size_t i = 0; i < line.size(); ++i) {
    const auto byte = static_cast<unsigned char>(line[i]);
    const auto next = static_cast<unsigned char>(i + 1 < line.size() ? line[i + 1] : 0);
    if (byte < 0x20 || byte == 0x7F) line[i] = ' ';
    // U+0080 to U+009F, which some terminals obey as well.
    if (byte == 0xC2 && next >= 0x80 && next <= 0x9F) line.replace(i, 2, 2, ' ');
  }
  return line;
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return FormatFixed(value, DecimalsFor(value)) + " " + kUnits[unit];
}

std::string FormatCount(int64_t count) {
  std::string digits = std::to_string(count);
  const size_t first = count < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string FormatMilliseconds(double ms) {
  if (!std::isfinite(ms)) return "?";
  if (ms < 99.95) return FormatFixed(ms, 1) + " ms";
  if (ms < 999.5) return FormatFixed(ms, 0) + " ms";
  if (ms < 59995) return FormatFixed(ms / 1000, DecimalsFor(ms / 1000)) + " s";
  const auto seconds = static_cast<int64_t>(std::llround(ms / 1000));
  if (seconds < 3600) return std::to_string(seconds / 60) + " min " + TwoDigits(seconds % 60) + " s";
  return std::to_string(seconds / 3600) + " h " + TwoDigits(seconds / 60 % 60) + " min";
}

}  // namespace loopserve
