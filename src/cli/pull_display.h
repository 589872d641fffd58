// The progress of a pull on one line. Thread rule: as StatusLine.
#pragma once

#include <chrono>
#include <string>

#include "src/cli/status_line.h"
#include "src/fetch/download.h"

namespace loopserve {

class PullDisplay {
 public:
  void Show(const PullProgress& progress);
  void Clear() { line_.Clear(); }

 private:
  std::string Downloading(const PullProgress& progress);

  StatusLine line_;
  PullStage stage_ = PullStage::kWaitingForLock;
  std::chrono::steady_clock::time_point begin_{};
  int64_t resumed_bytes_ = 0;
};

}  // namespace loopserve
