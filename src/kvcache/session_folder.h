// Stored dialogues in one folder, a file each, found by their ids. Several processes may use a folder: who changes it
// holds its lock meanwhile, who reads needs none (snapshot_reader.h).
// Thread rule: thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/status.h"
#include "src/kvcache/snapshot_reader.h"
#include "src/kvcache/snapshot_writer.h"

namespace loopserve {

inline constexpr size_t kMaxSessionIdBytes = 512;

/// The name of an id's file: letters, digits, "-" and "_" of its beginning, for people, and its SHA-256.
/// kInvalidArgument for ids that are empty, longer than kMaxSessionIdBytes, not UTF-8, or have control characters.
Result<std::string> SessionFileName(std::string_view id);

struct StoredSnapshot {
  std::string id;
  std::string file_name;
  SnapshotHeader header;
  uint64_t file_bytes = 0;
  int64_t last_used_unix_ms = 0;  ///< saved or read
};

class SessionFolder {
 public:
  /// Makes the folder (for its owner alone) where it is missing, and removes what writers that died left. budget_bytes:
  /// most bytes of all files together, 0 = no limit.
  static Result<std::unique_ptr<SessionFolder>> Open(FileOps& ops, const std::string& path, uint64_t budget_bytes);

  /// Adds the id to the content's regions and writes it. Where that would pass the budget, dialogues that are not
  /// pinned are deleted before, the least recently used first, damaged ones before all. kResourceExhausted, and nothing
  /// deleted, where that would not be enough.
  Result<SnapshotWriteStats> Save(std::string_view id, SnapshotContent content);
  /// Opens one and counts as its use. kNotFound, and the errors of SnapshotReader.
  Result<SnapshotReader> Read(std::string_view id);
  /// All that can be read, the most recently used first. n_unreadable may be null: how many cannot.
  Result<std::vector<StoredSnapshot>> List(int* n_unreadable);
  Status Delete(std::string_view id);
  Status SetPinned(std::string_view id, bool pinned);

  const std::string& path() const { return folder_.path; }

 private:
  struct File {
    std::string name;
    uint64_t bytes = 0;
    int64_t last_used_unix_ms = 0;
  };

  SessionFolder(SnapshotFolder folder, uint64_t budget_bytes)
      : folder_(std::move(folder)), budget_bytes_(budget_bytes) {}
  Result<std::vector<File>> Files(bool temporary) const;
  Status RemoveLeftovers();
  /// Makes room for a file of that size under `name`. The lock is held.
  Status MakeRoom(const std::string& name, uint64_t file_bytes);

  SnapshotFolder folder_;
  uint64_t budget_bytes_;
};

}  // namespace loopserve
