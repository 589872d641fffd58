#include "src/base/file_ops.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "src/base/errno_status.h"

namespace loopserve {
namespace {

/// Parts of one system call; Linux takes up to 1,024.
constexpr size_t kPartsOfCall = 512;

/// Calls `transfer(parts, n, offset)` until all parts are done; it gives bytes done, 0 for "no more", or -1.
template <typename Part, typename Transfer>
Status TransferAll(std::span<const Part> parts, uint64_t offset, const std::string& what, const Transfer& transfer,
                   const Status& at_end) {
  size_t part = 0, done_of_part = 0;
  while (true) {
    std::array<iovec, kPartsOfCall> vectors;
    size_t n = 0;
    for (size_t i = part; i < parts.size() && n < kPartsOfCall; ++i) {
      const size_t skip = i == part ? done_of_part : 0;
      if (parts[i].size() == skip) continue;
      vectors[n++] = {const_cast<std::byte*>(parts[i].data()) + skip, parts[i].size() - skip};
    }
    if (n == 0) return Status::Ok();
    const ssize_t done = transfer(vectors.data(), static_cast<int>(n), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return ErrnoStatus(what, errno);
    if (done == 0) return at_end;
    offset += static_cast<uint64_t>(done);
    for (auto left = static_cast<size_t>(done); left > 0;) {
      const size_t of_part = std::min(left, parts[part].size() - done_of_part);
      left -= of_part;
      done_of_part += of_part;
      if (done_of_part < parts[part].size()) break;
      ++part;
      done_of_part = 0;
    }
  }
}

}  // namespace

FileOps& FileOps::System() {
  static FileOps ops;
  return ops;
}

int FileOps::OpenAt(int dir_fd, const char* name, int flags, mode_t mode) { return openat(dir_fd, name, flags, mode); }
ssize_t FileOps::WriteAt(int fd, const iovec* parts, int n_parts, off_t offset) {
  return pwritev(fd, parts, n_parts, offset);
}
ssize_t FileOps::ReadAt(int fd, const iovec* parts, int n_parts, off_t offset) {
  return preadv(fd, parts, n_parts, offset);
}
int FileOps::Sync(int fd) { return fsync(fd); }
int FileOps::SyncData(int fd) { return fdatasync(fd); }
int FileOps::Truncate(int fd, off_t bytes) { return ftruncate(fd, bytes); }
int FileOps::RenameAt(int dir_fd, const char* from, const char* to) { return renameat(dir_fd, from, dir_fd, to); }
int FileOps::UnlinkAt(int dir_fd, const char* name) { return unlinkat(dir_fd, name, 0); }

Status WriteAllAt(FileOps& ops, int fd, std::span<const std::span<const std::byte>> parts, uint64_t offset,
                  const std::string& name) {
  return TransferAll(
      parts, offset, "cannot write " + name,
      [&](const iovec* vectors, int n, off_t at) { return ops.WriteAt(fd, vectors, n, at); },
      Status(StatusCode::kIoError, "cannot write " + name + ": the system takes no bytes"));
}

Status ReadAllAt(FileOps& ops, int fd, std::span<const std::span<std::byte>> parts, uint64_t offset,
                 const std::string& name) {
  return TransferAll(
      parts, offset, "cannot read " + name,
      [&](const iovec* vectors, int n, off_t at) { return ops.ReadAt(fd, vectors, n, at); },
      Status(StatusCode::kCorruptData, name + ": the file ends early"));
}

Status SyncFolder(FileOps& ops, int dir_fd, const std::string& name) {
  if (ops.Sync(dir_fd) != 0 && errno != EINVAL) return ErrnoStatus("cannot sync the folder " + name, errno);
  return Status::Ok();
}

}  // namespace loopserve
