// Writes a dialogue to its file so that a crash at any moment leaves the old state or the new one.
//
// A file that holds an earlier state of the same dialogue is appended to: regions that it has already, by their
// checksums, stay where they are; new ones and a table go behind its committed end and are synced; then the other
// header slot is written and synced, which is the moment when the new state counts. Otherwise, and where more than a
// third of the file would be regions that nobody refers to, a new file is written beside it, synced, renamed over it,
// and the folder synced (docs/decisions/0007-snapshots.md). Thread rule: one writer at a time in a folder (FolderLock);
// the cache and the parts must not change meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "loopserve/status.h"
#include "src/base/file_ops.h"
#include "src/base/unique_fd.h"
#include "src/kvcache/kv_cache.h"
#include "src/kvcache/snapshot_format.h"

namespace loopserve {

/// A region to be written: its bytes lie in `parts`, in memory of the caller.
struct RegionSource {
  RegionKind kind = RegionKind::kId;
  uint64_t first = 0;
  uint64_t count = 0;
  std::vector<std::span<const std::byte>> parts;
};

struct SnapshotContent {
  SnapshotKey key;
  std::string engine_version;
  std::string model_name;
  const KvCache* cache = nullptr;     ///< its tokens' rows are written besides
  std::vector<RegionSource> regions;  ///< everything else
};

struct SnapshotWriteStats {
  uint64_t written_bytes = 0;
  uint64_t kept_bytes = 0;  ///< of regions that the file had already
  uint64_t file_bytes = 0;  ///< afterwards
  bool appended = false;
};

/// Where files are written: a folder, open.
struct SnapshotFolder {
  FileOps* ops = nullptr;
  UniqueFd fd;
  std::string path;  ///< for messages

  /// kNotFound, kIoError.
  static Result<SnapshotFolder> Open(FileOps& ops, const std::string& path);
  std::string Shown(const std::string& name) const { return path + "/" + name; }
};

/// Keeps other writers, of this process and of others, out of a folder. The system frees it when the process dies.
class FolderLock {
 public:
  /// Waits for at most timeout_ms; then kIoError says that another writer has it.
  static Result<FolderLock> Take(const SnapshotFolder& folder, int timeout_ms = 30'000);

 private:
  explicit FolderLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// The name under which a new state of `name` is written before it is renamed.
std::string TemporaryNameOf(const std::string& name);
bool IsTemporaryName(const std::string& name);

/// Saves under `name`. admit: called with the bytes that the file will have, before anything is written; its error ends
/// the save. A file there that is damaged is replaced; one that is no snapshot, or of a later version, is not.
/// Errors leave the old state: kResourceExhausted (disk full, `admit`), kIoError, kUnsupported, kInvalidArgument.
Result<SnapshotWriteStats> WriteSnapshot(const SnapshotFolder& folder, const std::string& name,
                                         const SnapshotContent& content,
                                         const std::function<Status(uint64_t file_bytes)>& admit = {});

/// Sets the flag of a stored dialogue; nothing where it has it already.
Status SetSnapshotPinned(const SnapshotFolder& folder, const std::string& name, bool pinned);

}  // namespace loopserve
