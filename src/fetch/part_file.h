// A download that is under way: FILE.part holds the bytes so far, FILE.part.meta what they are bytes of. Both survive a
// crash and let the next pull go on. Thread rule: one thread, under the model's FileLock.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "loopserve/status.h"
#include "src/base/unique_fd.h"

namespace loopserve {

/// What the bytes of a part belong to.
struct PartMeta {
  std::string url;                     ///< as asked for, before redirects
  std::string validator;               ///< strong ETag or Last-Modified of the file; empty: it cannot be resumed
  std::optional<int64_t> total_bytes;  ///< of the whole file, where the server said so
};

class PartFile {
 public:
  /// Opens what an earlier pull of `url` left beside `target`, or starts empty. Left-overs that do not fit (another
  /// URL, a damaged meta file, more bytes than the file has) count as nothing.
  static Result<PartFile> Open(const std::filesystem::path& target, const std::string& url);

  int64_t size_bytes() const { return size_bytes_; }
  const PartMeta& meta() const { return meta_; }
  const std::filesystem::path& path() const { return path_; }

  /// Forgets all bytes; those that follow belong to a file described by `meta`.
  Status Restart(const PartMeta& meta);
  /// kResourceExhausted when the disk is full: what was written before stays and counts.
  Status Append(std::string_view bytes);
  /// The first bytes, at most `count`.
  Result<std::string> Head(size_t count) const;
  /// Makes the bytes durable, gives them their final name and removes the meta file.
  Status MoveTo(const std::filesystem::path& target);
  /// Removes both files.
  void Discard();

 private:
  PartFile() = default;
  std::filesystem::path path_;
  std::filesystem::path meta_path_;
  UniqueFd fd_;
  int64_t size_bytes_ = 0;
  PartMeta meta_;
};

}  // namespace loopserve
