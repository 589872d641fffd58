// A helper program that answers lines with lines: started without a shell, spoken to over its standard input and
// output. It must read a line to its end before it answers. What it writes to its standard error is kept in an unlinked
// file, for error messages. Thread rule: one thread at a time. Ownership: the destructor closes the pipes, waits a
// moment for the program to end, and kills it where it does not.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/status.h"
#include "src/base/unique_fd.h"

namespace loopserve::bench {

class ChildProcess {
 public:
  /// arguments[0] is the program: a path, or a name that is looked up in PATH. Errors: kNotFound, kIoError.
  /// cancel, if given, is looked at while Ask waits.
  static Result<std::unique_ptr<ChildProcess>> Start(const std::vector<std::string>& arguments,
                                                     const std::atomic<bool>* cancel = nullptr);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  /// Sends one line (without its end) and returns the next line of the program. Errors: kIoError when the program has
  /// ended (says how, with the last lines of its standard error) or does not answer within `timeout`; kCancelled. After
  /// an error the program is not spoken to again: further calls give kIoError.
  Result<std::string> Ask(std::string_view line, std::chrono::milliseconds timeout);

  pid_t pid() const { return pid_; }

 private:
  using Clock = std::chrono::steady_clock;
  ChildProcess(pid_t pid, UniqueFd input, UniqueFd output, UniqueFd errors, std::string name);
  /// Waits until `fd` is ready for `events`. kIoError saying `late` at the deadline, kCancelled.
  Status Wait(int fd, short events, Clock::time_point deadline, const char* late);
  Status Send(std::string_view text, Clock::time_point deadline);
  Result<std::string> ReadLine(Clock::time_point deadline);
  /// How the program ended and what it said last, as an error.
  Status Ended();
  std::string LastErrorLines() const;

  pid_t pid_;
  UniqueFd input_;   // our end of the program's standard input
  UniqueFd output_;  // our end of its standard output
  UniqueFd errors_;  // the file behind its standard error
  std::string name_;
  std::string buffer_;  // read but not yet returned
  const std::atomic<bool>* cancel_ = nullptr;
  bool broken_ = false;
};

}  // namespace loopserve::bench
