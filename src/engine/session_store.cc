#include "loopserve/session_store.h"

#include <fcntl.h>

#include <filesystem>
#include <new>
#include <utility>

#include "src/base/clock.h"
#include "src/engine/session_snapshot.h"
#include "src/kvcache/session_folder.h"

namespace loopserve {
namespace {

/// Runs a save over the content of a session; `write(content)` gives its figures.
template <typename Write>
Result<SaveStats> SaveWith(const Session& session, std::string_view metadata, const Write& write) {
  const auto start = Clock::now();
  try {
    SnapshotRegions regions;
    SnapshotContent content;
    LS_RETURN_IF_ERROR(DescribeSession(SessionAccess::Of(session), metadata, &regions, &content));
    LS_ASSIGN_OR_RETURN(const SnapshotWriteStats written, write(std::move(content)));
    return SaveStats{written.written_bytes, written.kept_bytes,       written.file_bytes,
                     written.appended,      MillisecondsSince(start), {}};
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "no memory to save the session");
  }
}

struct FilePath {
  std::string folder;
  std::string name;
};

Result<FilePath> Split(const std::string& path) {
  const std::filesystem::path whole(path);
  FilePath parts = {whole.has_parent_path() ? whole.parent_path().string() : ".", whole.filename().string()};
  const bool is_name = !parts.name.empty() && parts.name != "." && parts.name != "..";
  if (!is_name || path.find('\0') != std::string::npos)
    return Status(StatusCode::kInvalidArgument, "'" + path + "' does not name a file");
  return parts;
}

Result<SnapshotReader> OpenFile(const std::string& path) {
  LS_ASSIGN_OR_RETURN(const FilePath parts, Split(path));
  LS_ASSIGN_OR_RETURN(const SnapshotFolder folder, SnapshotFolder::Open(FileOps::System(), parts.folder));
  return SnapshotReader::Open(FileOps::System(), folder.fd.get(), parts.name, path);
}

}  // namespace

SessionStore::SessionStore(std::unique_ptr<SessionFolder> folder) : folder_(std::move(folder)) {}
SessionStore::~SessionStore() = default;

Result<std::unique_ptr<SessionStore>> SessionStore::Open(const SessionStoreOptions& options) {
  LS_ASSIGN_OR_RETURN(std::unique_ptr<SessionFolder> folder,
                      SessionFolder::Open(FileOps::System(), options.directory, options.budget_bytes, options.alone));
  return std::unique_ptr<SessionStore>(new SessionStore(std::move(folder)));
}

Result<SaveStats> SessionStore::Save(const Session& session, std::string_view id, std::string_view metadata) {
  std::vector<std::string> deleted;
  auto stats = SaveWith(session, metadata,
                        [&](SnapshotContent content) { return folder_->Save(id, std::move(content), &deleted); });
  if (stats.ok()) stats->deleted = std::move(deleted);
  return stats;
}

Result<RestoredSession> SessionStore::Restore(const Engine& engine, std::string_view id) {
  LS_ASSIGN_OR_RETURN(const SnapshotReader reader, folder_->Read(id, SessionFolder::Use::kCounts));
  return ReadSession(SessionAccess::Of(engine), reader);
}

Result<StoredText> SessionStore::ReadText(std::string_view id) {
  LS_ASSIGN_OR_RETURN(const SnapshotReader reader, folder_->Read(id, SessionFolder::Use::kDoesNotCount));
  return ReadStoredText(reader);
}

Status SessionStore::CheckFits(const Engine& engine, std::string_view id) {
  LS_ASSIGN_OR_RETURN(const SnapshotReader reader, folder_->Read(id, SessionFolder::Use::kDoesNotCount));
  return CheckKey(*SessionAccess::Of(engine), reader);
}

Result<uint64_t> SessionStore::UsedBytes() { return folder_->UsedBytes(); }

Result<std::vector<StoredSessionInfo>> SessionStore::List(int* n_unreadable) {
  LS_ASSIGN_OR_RETURN(const std::vector<StoredSnapshot> stored, folder_->List(n_unreadable));
  std::vector<StoredSessionInfo> infos;
  for (const StoredSnapshot& one : stored) {
    infos.push_back({one.id, static_cast<int64_t>(one.header.n_tokens), one.file_bytes, one.header.pinned,
                     one.header.saved_unix_ms, one.last_used_unix_ms, one.header.model_name});
  }
  return infos;
}

Status SessionStore::Delete(std::string_view id) { return folder_->Delete(id); }
Status SessionStore::SetPinned(std::string_view id, bool pinned) { return folder_->SetPinned(id, pinned); }

Result<SaveStats> SaveSession(const Session& session, const std::string& path, std::string_view metadata) {
  LS_ASSIGN_OR_RETURN(const FilePath parts, Split(path));
  LS_ASSIGN_OR_RETURN(const SnapshotFolder folder, SnapshotFolder::Open(FileOps::System(), parts.folder));
  return SaveWith(session, metadata, [&](const SnapshotContent& content) -> Result<SnapshotWriteStats> {
    LS_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(folder));
    return WriteSnapshot(folder, parts.name, content);
  });
}

Result<RestoredSession> RestoreSession(const Engine& engine, const std::string& path) {
  LS_ASSIGN_OR_RETURN(const SnapshotReader reader, OpenFile(path));
  return ReadSession(SessionAccess::Of(engine), reader);
}

Result<StoredText> ReadSessionText(const std::string& path) {
  LS_ASSIGN_OR_RETURN(const SnapshotReader reader, OpenFile(path));
  return ReadStoredText(reader);
}

}  // namespace loopserve
