#include <fcntl.h>
#include <sys/file.h>

#include <chrono>
#include <thread>

#include "src/base/errno_status.h"
#include "src/kvcache/snapshot_writer.h"

namespace loopserve {

Result<SnapshotFolder> SnapshotFolder::Open(FileOps& ops, const std::string& path) {
  SnapshotFolder folder;
  folder.ops = &ops;
  folder.path = path;
  folder.fd.Reset(ops.OpenAt(AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (!folder.fd.valid()) return ErrnoStatus("cannot open the folder " + path, errno);
  return folder;
}

Result<FolderLock> FolderLock::Take(const SnapshotFolder& folder, int timeout_ms) {
  // A description of its own for every lock: threads of one process wait for each other as processes do.
  UniqueFd fd(openat(folder.fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus("cannot open the folder " + folder.path, errno);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return ErrnoStatus("cannot lock the folder " + folder.path, errno);
    if (std::chrono::steady_clock::now() >= deadline) {
      return Status(StatusCode::kIoError, "another writer has held the folder " + folder.path + " for " +
                                              std::to_string(timeout_ms / 1000) + " seconds");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return FolderLock(std::move(fd));
}

namespace {
constexpr char kTemporarySuffix[] = ".tmp~";
}

std::string TemporaryNameOf(const std::string& name) { return "." + name + kTemporarySuffix; }

bool IsTemporaryName(const std::string& name) {
  return name.size() > sizeof(kTemporarySuffix) && name[0] == '.' && name.ends_with(kTemporarySuffix);
}

}  // namespace loopserve
