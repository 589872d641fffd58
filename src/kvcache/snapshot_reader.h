// A stored dialogue, open for reading: header and table checked, regions read and held against their checksums on
// demand. What it reads stays as it is while others save: they write behind it, or another file in its place.
// Thread rule: const methods are thread-safe. Ownership: owns its descriptor.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "loopserve/status.h"
#include "src/base/file_ops.h"
#include "src/base/unique_fd.h"
#include "src/kvcache/snapshot_format.h"

namespace loopserve {

class SnapshotReader {
 public:
  /// Opens `name` in a folder: a regular file, no link, whatever stands there. `shown` names it in messages. Errors:
  /// kNotFound, kIoError (no regular file, no permission), kCorruptData, kUnsupported.
  static Result<SnapshotReader> Open(FileOps& ops, int dir_fd, const std::string& name, const std::string& shown);
  /// The same of an open descriptor.
  static Result<SnapshotReader> Read(FileOps& ops, UniqueFd fd, const std::string& shown);

  const SnapshotHeader& header() const { return header_; }
  const std::vector<Region>& regions() const { return regions_; }
  uint64_t stored_bytes() const { return stored_bytes_; }  ///< of the file, unfinished rest included
  int fd() const { return fd_.get(); }

  /// The one region of this kind (and first). kCorruptData where there is none.
  Result<Region> Find(RegionKind kind, uint64_t first = 0) const;
  /// Whole regions; kCorruptData if the checksum differs.
  Result<std::vector<std::byte>> ReadBytes(const Region& region) const;
  Result<std::string> ReadText(RegionKind kind) const;
  /// The same into memory of the caller, region.bytes together.
  Status ReadInto(const Region& region, std::span<const std::span<std::byte>> parts) const;

 private:
  SnapshotReader(FileOps& ops, UniqueFd fd, std::string shown)
      : ops_(&ops), fd_(std::move(fd)), shown_(std::move(shown)) {}
  Status ReadHead();
  Status Corrupt(const std::string& what) const { return Status(StatusCode::kCorruptData, shown_ + ": " + what); }

  FileOps* ops_;
  UniqueFd fd_;
  std::string shown_;
  uint64_t stored_bytes_ = 0;
  SnapshotHeader header_;
  std::vector<Region> regions_;
};

/// Opens a regular file by openat; kIoError for links, folders, pipes and devices. flags: O_RDONLY or O_RDWR.
Result<UniqueFd> OpenRegularFile(FileOps& ops, int dir_fd, const std::string& name, int flags,
                                 const std::string& shown);

}  // namespace loopserve
