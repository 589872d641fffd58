// Runs another program without a shell. Thread rule: free function, thread-safe.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "loopserve/status.h"

namespace loopserve {

struct ChildResult {
  int exit_code = 0;        ///< 128 + signal number if a signal ended it
  std::string output_tail;  ///< the last 4 KiB of its stdout and stderr together
};

/// argv[0] is looked up in PATH. stdin is empty. kNotFound: no such program. kCancelled: the flag was set; the child
/// and its group were ended. A program that fails is not an error here: see exit_code.
Result<ChildResult> RunChild(const std::vector<std::string>& argv, const std::atomic<bool>* cancel = nullptr);

}  // namespace loopserve
