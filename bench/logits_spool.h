// Rows of logits put aside on disk: an answer's rows of a large vocabulary are hundreds of megabytes, and the models
// that are compared with them come one after the other. Thread rule: one thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "loopserve/status.h"
#include "src/base/unique_fd.h"

namespace loopserve::bench {

class LogitsSpool {
 public:
  /// A file in `dir` that has no name, so that it is gone with this object or the process. kIoError and the like.
  static Result<LogitsSpool> Create(const std::string& dir, int n_vocab);

  int64_t n_rows() const { return n_rows_; }
  /// row: f32 [n_vocab]. kIoError, also for a full disk: what is to come would not fit either.
  Status Append(std::span<const float> row);
  /// f32 [n_vocab], valid until the next call. Precondition: 0 <= i < n_rows().
  Result<std::span<const float>> Row(int64_t i);

 private:
  LogitsSpool(UniqueFd fd, std::string dir, int n_vocab)
      : fd_(std::move(fd)), dir_(std::move(dir)), row_(static_cast<size_t>(n_vocab)) {}

  UniqueFd fd_;
  std::string dir_;
  std::vector<float> row_;
  int64_t n_rows_ = 0;
};

}  // namespace loopserve::bench
