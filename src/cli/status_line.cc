#include "src/cli/status_line.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "src/base/format.h"

namespace loopserve {
namespace {

size_t TerminalColumns(std::FILE* file) {
  winsize size{};
  return ioctl(fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

}  // namespace

StatusLine::StatusLine(std::FILE* file) : file_(file), visible_(isatty(fileno(file)) == 1) {}

void StatusLine::Show(const std::string& text, bool now) {
  const auto time = std::chrono::steady_clock::now();
  if (!visible_ || (!now && drawn_ && time - last_ < std::chrono::milliseconds(100))) return;
  last_ = time;
  drawn_ = true;
  // A line that wraps could not be drawn over.
  std::fprintf(file_, "\r%s\x1b[K", OnOneLine(text.substr(0, TerminalColumns(file_) - 1)).c_str());
  std::fflush(file_);
}

void StatusLine::Clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", file_);
  std::fflush(file_);
  drawn_ = false;
}

std::string ProgressBar(double fraction, int width) {
  const double clamped = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
  const auto filled = static_cast<size_t>(clamped * width);
  return "[" + std::string(filled, '#') + std::string(static_cast<size_t>(width) - filled, '-') + "]";
}

}  // namespace loopserve
