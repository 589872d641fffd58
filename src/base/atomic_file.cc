#include "src/base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "src/base/errno_status.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;

Status SyncFolder(const fs::path& folder) {
  UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus("cannot open the folder " + folder.string(), errno);
  // Some file systems have no fsync for folders and say EINVAL; the rename itself has been done.
  if (fsync(fd.get()) != 0 && errno != EINVAL) return ErrnoStatus("cannot sync the folder " + folder.string(), errno);
  return Status::Ok();
}

fs::path FolderOf(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

fs::path TemporaryName(const fs::path& target) {
  static std::atomic<uint64_t> counter{0};
  return FolderOf(target) / ("." + target.filename().string().substr(0, 100) + "." + std::to_string(getpid()) + "." +
                             std::to_string(counter.fetch_add(1)) + ".tmp");
}

}  // namespace

Result<AtomicFile> AtomicFile::Create(const fs::path& path) {
  std::error_code error;
  fs::path target = path;
  if (fs::is_symlink(fs::symlink_status(path, error))) {
    target = fs::canonical(path, error);
    if (error) return ErrnoStatus("cannot follow the link " + path.string(), error.value());
  }
  const fs::file_status status = fs::status(target, error);
  if (fs::is_directory(status))
    return Status(StatusCode::kIoError, "cannot write " + path.string() + ": it is a folder");
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    UniqueFd fd(open(target.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.valid()) return ErrnoStatus("cannot write " + path.string(), errno);
    return AtomicFile(target, {}, std::move(fd));
  }
  // O_EXCL with a name of our own, not mkstemp: the file gets the mode that the user's umask asks for.
  for (int attempt = 0; attempt < 100; ++attempt) {
    const fs::path temporary = TemporaryName(target);
    UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (fd.valid()) return AtomicFile(target, temporary, std::move(fd));
    if (errno != EEXIST) return ErrnoStatus("cannot write " + path.string(), errno);
  }
  return Status(StatusCode::kIoError, "cannot write " + path.string() + ": too many left-over temporary files there");
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : target_(std::move(other.target_)), temporary_(std::move(other.temporary_)), fd_(std::move(other.fd_)) {
  other.temporary_.clear();
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

Status AtomicFile::Write(std::string_view bytes) { return WriteAll(fd_.get(), bytes, target_.string()); }

Status AtomicFile::Commit() {
  const bool direct = temporary_.empty();
  if (!direct && fsync(fd_.get()) != 0) return ErrnoStatus("cannot write " + target_.string(), errno);
  if (close(fd_.Release()) != 0) return ErrnoStatus("cannot write " + target_.string(), errno);
  if (direct) return Status::Ok();
  LS_RETURN_IF_ERROR(RenameDurably(temporary_, target_));
  temporary_.clear();
  return Status::Ok();
}

Status WriteFileAtomically(const fs::path& path, std::string_view bytes) {
  LS_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  LS_RETURN_IF_ERROR(file.Write(bytes));
  return file.Commit();
}

Status WriteAll(int fd, std::string_view bytes, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("cannot write " + name, errno);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return Status::Ok();
}

Status RenameDurably(const fs::path& from, const fs::path& to) {
  if (rename(from.c_str(), to.c_str()) != 0) return ErrnoStatus("cannot rename to " + to.string(), errno);
  return SyncFolder(FolderOf(to));
}

}  // namespace loopserve
