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
  /// most bytes of all files together, 0 = no limit. alone: kResourceExhausted where another one is open that asked for
  /// the same, here or in another process.
  static Result<std::unique_ptr<SessionFolder>> Open(FileOps& ops, const std::string& path, uint64_t budget_bytes,
                                                     bool alone = false);

  /// Adds the id to the content's regions and writes it. Where that would pass the budget, dialogues that are not
  /// pinned are deleted before, the least recently used first, damaged ones before all. kResourceExhausted, and nothing
  /// deleted, where that would not be enough. deleted: gets the ids of those that were, as far as they could be read;
  /// may be null.
  Result<SnapshotWriteStats> Save(std::string_view id, SnapshotContent content,
                                  std::vector<std::string>* deleted = nullptr);
  /// Opens one; a use makes it the most recently used. kNotFound, and the errors of SnapshotReader.
  enum class Use { kCounts, kDoesNotCount };
  Result<SnapshotReader> Read(std::string_view id, Use use = Use::kCounts);
  /// All that can be read, the most recently used first. n_unreadable may be null: how many cannot.
  Result<std::vector<StoredSnapshot>> List(int* n_unreadable);
  Status Delete(std::string_view id);
  Status SetPinned(std::string_view id, bool pinned);
  /// Bytes of all files of dialogues.
  Result<uint64_t> UsedBytes() const;

  const std::string& path() const { return folder_.path; }

 private:
  struct File {
    std::string name;
    uint64_t bytes = 0;
    int64_t last_used_unix_ms = 0;
    std::string id;  ///< where it was needed and could be read
  };

  SessionFolder(SnapshotFolder folder, uint64_t budget_bytes)
      : folder_(std::move(folder)), budget_bytes_(budget_bytes) {}
  Result<std::vector<File>> Files(bool temporary) const;
  Status RemoveLeftovers();
  /// Makes room for a file of that size under `name`. The lock is held.
  Status MakeRoom(const std::string& name, uint64_t file_bytes, std::vector<std::string>* deleted);
  /// Those that may be deleted, in this order.
  std::vector<File> Candidates(const std::vector<File>& files) const;
  Status BeAlone();

  SnapshotFolder folder_;
  uint64_t budget_bytes_;
  UniqueFd owner_;  ///< locked while this one is alone in the folder
};

}  // namespace loopserve
