#include "src/cli/line_source.h"

#include <poll.h>
#include <unistd.h>

#include "src/base/errno_status.h"

namespace loopserve {

Result<LineKind> FdLineSource::Read(std::string* line) {
  size_t searched = 0;
  while (true) {
    const size_t newline = buffer_.find('\n', searched);
    if (newline != std::string::npos) {
      line->assign(buffer_, 0, newline);
      buffer_.erase(0, newline + 1);
      if (!line->empty() && line->back() == '\r') line->pop_back();
      return LineKind::kLine;
    }
    searched = buffer_.size();
    if (at_end_) {
      // A last line without a newline counts.
      if (buffer_.empty()) return LineKind::kEnd;
      line->swap(buffer_);
      buffer_.clear();
      return LineKind::kLine;
    }
    // A signal that came just before the wait does not cut it short: the flag is what counts.
    if (interrupt_.load()) {
      buffer_.clear();
      return LineKind::kInterrupted;
    }
    pollfd wanted{fd_, POLLIN, 0};
    if (poll(&wanted, 1, 100) <= 0) continue;
    char chunk[65536];
    const ssize_t n = read(fd_, chunk, sizeof(chunk));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("cannot read the input", errno);
    if (n == 0) at_end_ = true;
    buffer_.append(chunk, static_cast<size_t>(n));
  }
}

}  // namespace loopserve
