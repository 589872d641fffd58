// A lock between processes, by which two pulls of the same model wait for each other.
// Ownership: held until destroyed; the system frees it when the process dies. Thread rule: one thread at a time.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>

#include "loopserve/status.h"
#include "src/base/unique_fd.h"

namespace loopserve {

class FileLock {
 public:
  /// Creates `path` where it is missing (it stays: removing lock files is a race) and waits until it is free.
  /// on_wait: called once if somebody else holds it. kCancelled (looked at every 50 ms), kIoError.
  static Result<FileLock> Acquire(const std::filesystem::path& path, const std::atomic<bool>* cancel = nullptr,
                                  const std::function<void()>& on_wait = {});

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace loopserve
