// Files that are whole or absent: written under another name in the same folder, synced, renamed, folder synced.
// Used for snapshots, reports and downloads. Thread rule: one thread at a time per file.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "loopserve/status.h"
#include "src/base/unique_fd.h"

namespace loopserve {

/// A file being written. Until Commit succeeds the target is untouched; destroying it uncommitted removes the remains.
/// Where the target exists and is no regular file (a device, a pipe), it is written to directly.
class AtomicFile {
 public:
  /// kNotFound (no such folder), kIoError, kResourceExhausted. A symbolic link is followed: its target is replaced.
  static Result<AtomicFile> Create(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) = delete;

  Status Write(std::string_view bytes);
  /// Makes the content durable and gives it its name. At most once.
  Status Commit();

 private:
  AtomicFile(std::filesystem::path target, std::filesystem::path temporary, UniqueFd fd)
      : target_(std::move(target)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}

  std::filesystem::path target_;
  std::filesystem::path temporary_;  // empty: the target is written directly
  UniqueFd fd_;
};

Status WriteFileAtomically(const std::filesystem::path& path, std::string_view bytes);

/// Writes all bytes to a descriptor; `name` is for the error message.
Status WriteAll(int fd, std::string_view bytes, const std::string& name);

/// Renames within one folder and syncs that folder.
Status RenameDurably(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace loopserve
