#include "src/kvcache/session_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "src/base/errno_status.h"
#include "src/base/format.h"
#include "src/base/log.h"
#include "src/base/sha256.h"
#include "src/base/utf8.h"

namespace loopserve {
namespace {

constexpr std::string_view kSuffix = ".lssnap";
constexpr char kOwnerName[] = ".owner";
constexpr size_t kShownCharacters = 32;
constexpr size_t kHashDigits = 32;  // 128 bits

bool IsSessionFile(const std::string& name) { return name.ends_with(kSuffix) && name[0] != '.'; }

int64_t ToUnixMs(const timespec& time) { return int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000; }

struct DirCloser {
  void operator()(DIR* dir) const { closedir(dir); }
};

}  // namespace

Result<std::string> SessionFileName(std::string_view id) {
  if (id.empty() || id.size() > kMaxSessionIdBytes) {
    return Status(StatusCode::kInvalidArgument, "a session's id has 1 to " + std::to_string(kMaxSessionIdBytes) +
                                                    " bytes, not " + std::to_string(id.size()));
  }
  const bool has_control =
      std::ranges::any_of(id, [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; });
  if (has_control || !IsValidUtf8(id))
    return Status(StatusCode::kInvalidArgument, "a session's id is UTF-8 text without control characters");
  std::string name;
  for (const char c : id.substr(0, kShownCharacters)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    name += plain ? c : '_';
  }
  return name + "-" + Sha256Hex(id).substr(0, kHashDigits) + std::string(kSuffix);
}

Result<std::unique_ptr<SessionFolder>> SessionFolder::Open(FileOps& ops, const std::string& path, uint64_t budget_bytes,
                                                           bool alone) {
  if (path.empty() || path.find('\0') != std::string::npos)
    return Status(StatusCode::kInvalidArgument, "the sessions' folder has no valid name");
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus("cannot make the folder " + path, errno);
  LS_ASSIGN_OR_RETURN(SnapshotFolder folder, SnapshotFolder::Open(ops, path));
  std::unique_ptr<SessionFolder> sessions(new SessionFolder(std::move(folder), budget_bytes));
  if (alone) LS_RETURN_IF_ERROR(sessions->BeAlone());
  LS_RETURN_IF_ERROR(sessions->RemoveLeftovers());
  return sessions;
}

Status SessionFolder::BeAlone() {
  // The system frees the lock when the process dies. The file stays: removing it would race with who comes next.
  const std::string shown = folder_.Shown(kOwnerName);
  const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  owner_.Reset(folder_.ops->OpenAt(folder_.fd.get(), kOwnerName, flags, 0600));
  if (!owner_.valid()) return ErrnoStatus("cannot open " + shown, errno);
  struct stat info {};
  if (fstat(owner_.get(), &info) != 0) return ErrnoStatus("cannot stat " + shown, errno);
  if (!S_ISREG(info.st_mode)) return Status(StatusCode::kIoError, shown + ": is not a regular file");
  while (flock(owner_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return ErrnoStatus("cannot lock " + shown, errno);
    return Status(StatusCode::kResourceExhausted,
                  "the sessions' folder " + folder_.path + " is in use by another server; each needs one of its own");
  }
  return Status::Ok();
}

Result<std::vector<SessionFolder::File>> SessionFolder::Files(bool temporary) const {
  UniqueFd fd(openat(folder_.fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  std::unique_ptr<DIR, DirCloser> dir(fd.valid() ? fdopendir(fd.get()) : nullptr);
  if (dir == nullptr) return ErrnoStatus("cannot list the folder " + folder_.path, errno);
  (void)fd.Release();  // the stream's from now on
  std::vector<File> files;
  while (const dirent* entry = readdir(dir.get())) {
    const std::string name = entry->d_name;
    if (temporary ? !IsTemporaryName(name) : !IsSessionFile(name)) continue;
    struct stat info {};
    if (fstatat(folder_.fd.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) continue;  // deleted meanwhile
    if (!S_ISREG(info.st_mode)) continue;
    files.push_back({name, static_cast<uint64_t>(info.st_size), ToUnixMs(info.st_mtim), {}});
  }
  return files;
}

Status SessionFolder::RemoveLeftovers() {
  LS_ASSIGN_OR_RETURN(const std::vector<File> seen, Files(/*temporary=*/true));
  if (seen.empty()) return Status::Ok();
  // With the lock nobody writes: what is still there belongs to a process that died.
  LS_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(folder_));
  LS_ASSIGN_OR_RETURN(const std::vector<File> left, Files(/*temporary=*/true));
  for (const File& file : left) folder_.ops->UnlinkAt(folder_.fd.get(), file.name.c_str());
  return Status::Ok();
}

std::vector<SessionFolder::File> SessionFolder::Candidates(const std::vector<File>& files) const {
  std::vector<File> candidates;
  for (File file : files) {
    const auto reader = SnapshotReader::Open(*folder_.ops, folder_.fd.get(), file.name, folder_.Shown(file.name));
    const bool damaged = reader.status().code() == StatusCode::kCorruptData;
    if (!damaged && (!reader.ok() || reader->header().pinned)) continue;
    if (damaged) file.last_used_unix_ms = INT64_MIN;
    if (reader.ok()) {
      const auto id = reader->ReadText(RegionKind::kId);
      if (id.ok()) file.id = *id;
    }
    candidates.push_back(std::move(file));
  }
  std::ranges::sort(candidates, {}, &File::last_used_unix_ms);
  return candidates;
}

Status SessionFolder::MakeRoom(const std::string& name, uint64_t file_bytes, std::vector<std::string>* deleted) {
  if (budget_bytes_ == 0) return Status::Ok();
  LS_ASSIGN_OR_RETURN(std::vector<File> files, Files(/*temporary=*/false));
  std::erase_if(files, [&](const File& file) { return file.name == name; });
  uint64_t others = 0;
  for (const File& file : files) others += file.bytes;
  if (file_bytes <= budget_bytes_ && others <= budget_bytes_ - file_bytes) return Status::Ok();
  const std::vector<File> candidates = Candidates(files);
  uint64_t can_go = 0;
  for (const File& file : candidates) can_go += file.bytes;
  if (file_bytes > budget_bytes_ || others - can_go > budget_bytes_ - file_bytes) {
    return Status(StatusCode::kResourceExhausted, "the sessions' disk budget is " + FormatBytes(budget_bytes_) +
                                                      ": this one needs " + FormatBytes(file_bytes) +
                                                      ", and pinned ones take " + FormatBytes(others - can_go));
  }
  for (const File& file : candidates) {
    if (others <= budget_bytes_ - file_bytes) break;
    if (folder_.ops->UnlinkAt(folder_.fd.get(), file.name.c_str()) != 0 && errno != ENOENT)
      return ErrnoStatus("cannot delete " + folder_.Shown(file.name), errno);
    Log(LogLevel::kInfo, "deleted " + file.name + " (" + FormatBytes(file.bytes) + ") to keep the disk budget");
    others -= file.bytes;
    if (deleted != nullptr && !file.id.empty()) deleted->push_back(file.id);
  }
  return Status::Ok();
}

Result<uint64_t> SessionFolder::UsedBytes() const {
  LS_ASSIGN_OR_RETURN(const std::vector<File> files, Files(/*temporary=*/false));
  uint64_t bytes = 0;
  for (const File& file : files) bytes += file.bytes;
  return bytes;
}

Result<SnapshotWriteStats> SessionFolder::Save(std::string_view id, SnapshotContent content,
                                               std::vector<std::string>* deleted) {
  LS_ASSIGN_OR_RETURN(const std::string name, SessionFileName(id));
  content.regions.push_back({RegionKind::kId, 0, 0, {std::as_bytes(std::span(id))}});
  LS_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(folder_));
  return WriteSnapshot(folder_, name, content, [&](uint64_t bytes) { return MakeRoom(name, bytes, deleted); });
}

Result<SnapshotReader> SessionFolder::Read(std::string_view id, Use use) {
  LS_ASSIGN_OR_RETURN(const std::string name, SessionFileName(id));
  auto reader = SnapshotReader::Open(*folder_.ops, folder_.fd.get(), name, folder_.Shown(name));
  if (reader.status().code() == StatusCode::kNotFound)
    return Status(StatusCode::kNotFound, "there is no stored session '" + std::string(id) + "' in " + folder_.path);
  LS_RETURN_IF_ERROR(reader.status());
  LS_ASSIGN_OR_RETURN(const std::string stored_id, reader->ReadText(RegionKind::kId));
  if (stored_id != id)
    return Status(StatusCode::kCorruptData, folder_.Shown(name) + ": belongs to another session; it was renamed");
  if (use == Use::kDoesNotCount) return reader;
  const timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
  (void)futimens(reader->fd(), now);  // in a folder that may only be read the order stays
  return reader;
}

Result<std::vector<StoredSnapshot>> SessionFolder::List(int* n_unreadable) {
  LS_ASSIGN_OR_RETURN(const std::vector<File> files, Files(/*temporary=*/false));
  std::vector<StoredSnapshot> stored;
  if (n_unreadable != nullptr) *n_unreadable = 0;
  for (const File& file : files) {
    auto reader = SnapshotReader::Open(*folder_.ops, folder_.fd.get(), file.name, folder_.Shown(file.name));
    if (reader.status().code() == StatusCode::kNotFound) continue;  // deleted meanwhile
    auto id = reader.ok() ? reader->ReadText(RegionKind::kId) : Result<std::string>(reader.status());
    if (id.ok()) {
      stored.push_back({*id, file.name, reader->header(), file.bytes, file.last_used_unix_ms});
      continue;
    }
    Log(LogLevel::kWarning, id.status().message());
    if (n_unreadable != nullptr) ++*n_unreadable;
  }
  std::ranges::sort(stored, std::ranges::greater(), &StoredSnapshot::last_used_unix_ms);
  return stored;
}

Status SessionFolder::Delete(std::string_view id) {
  LS_ASSIGN_OR_RETURN(const std::string name, SessionFileName(id));
  LS_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(folder_));
  if (folder_.ops->UnlinkAt(folder_.fd.get(), name.c_str()) != 0) {
    if (errno == ENOENT)
      return Status(StatusCode::kNotFound, "there is no stored session '" + std::string(id) + "' in " + folder_.path);
    return ErrnoStatus("cannot delete " + folder_.Shown(name), errno);
  }
  return SyncFolder(*folder_.ops, folder_.fd.get(), folder_.path);
}

Status SessionFolder::SetPinned(std::string_view id, bool pinned) {
  LS_ASSIGN_OR_RETURN(const std::string name, SessionFileName(id));
  LS_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(folder_));
  return SetSnapshotPinned(folder_, name, pinned);
}

}  // namespace loopserve
