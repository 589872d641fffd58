// The system calls by which stored dialogues are read and written, as an object: tests replace it to let any step fail,
// be cut short, or be the last one of the process. A call costs a system call either way, so the seam costs nothing.
// Thread rule: System() is thread-safe.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "loopserve/status.h"

namespace loopserve {

/// Each is the system call of that name, with its errno.
class FileOps {
 public:
  static FileOps& System();
  virtual ~FileOps() = default;

  virtual int OpenAt(int dir_fd, const char* name, int flags, mode_t mode);
  virtual ssize_t WriteAt(int fd, const iovec* parts, int n_parts, off_t offset);  ///< pwritev
  virtual ssize_t ReadAt(int fd, const iovec* parts, int n_parts, off_t offset);   ///< preadv
  virtual int Sync(int fd);                                                        ///< fsync
  virtual int SyncData(int fd);                                                    ///< fdatasync
  virtual int Truncate(int fd, off_t bytes);                                       ///< ftruncate
  virtual int RenameAt(int dir_fd, const char* from, const char* to);
  virtual int UnlinkAt(int dir_fd, const char* name);
};

/// Writes all parts one after the other from `offset` on, however the system cuts them up. `name` is for the message.
Status WriteAllAt(FileOps& ops, int fd, std::span<const std::span<const std::byte>> parts, uint64_t offset,
                  const std::string& name);
/// Fills all parts. kCorruptData where the file ends before.
Status ReadAllAt(FileOps& ops, int fd, std::span<const std::span<std::byte>> parts, uint64_t offset,
                 const std::string& name);
/// fsync of a folder; file systems that have none for folders say EINVAL, which counts as done.
Status SyncFolder(FileOps& ops, int dir_fd, const std::string& name);

}  // namespace loopserve
