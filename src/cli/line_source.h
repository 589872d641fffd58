// Lines that a user types or a file gives, read so that Ctrl-C at the prompt is noticed. Thread rule: one thread.
#pragma once

#include <atomic>
#include <string>

#include "loopserve/status.h"

namespace loopserve {

enum class LineKind { kLine, kEnd, kInterrupted };

class LineSource {
 public:
  virtual ~LineSource() = default;
  /// The next line without its newline, in *line. kInterrupted: an interrupt came before or while waiting; what was
  /// typed is dropped. An error other than these: kIoError.
  virtual Result<LineKind> Read(std::string* line) = 0;
};

/// Over a file descriptor, which must stay open.
class FdLineSource : public LineSource {
 public:
  /// interrupt: looked at while waiting, every 100 ms and after every signal.
  FdLineSource(int fd, const std::atomic<bool>& interrupt) : fd_(fd), interrupt_(interrupt) {}
  Result<LineKind> Read(std::string* line) override;

 private:
  int fd_;
  const std::atomic<bool>& interrupt_;
  std::string buffer_;
  bool at_end_ = false;
};

}  // namespace loopserve
