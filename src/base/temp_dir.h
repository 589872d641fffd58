// A new folder that is removed again with all that is in it. Thread rule: one thread at a time.
#pragma once

#include <filesystem>

#include "loopserve/status.h"

namespace loopserve {

class TempDir {
 public:
  /// In the system's folder for temporary files; for tests (fails a check where that is impossible).
  TempDir();
  /// Creates `parent` too where it is missing. kIoError, kResourceExhausted.
  static Result<TempDir> In(const std::filesystem::path& parent);
  ~TempDir();
  TempDir(TempDir&& other) noexcept;
  TempDir& operator=(TempDir&& other) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  explicit TempDir(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

}  // namespace loopserve
