#include "src/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <system_error>

namespace loopserve {
namespace {

Status SystemError(const std::string& path, const char* what, int error) {
  StatusCode code = StatusCode::kIoError;
  if (error == ENOENT || error == ENOTDIR) code = StatusCode::kNotFound;
  if (error == ENOMEM || error == EMFILE || error == ENFILE) code = StatusCode::kResourceExhausted;
  return Status(code, path + ": " + what + ": " + std::generic_category().message(error));
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

Result<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  if (path.find('\0') != std::string::npos) return Status(StatusCode::kNotFound, "the path contains a NUL byte");
  // O_NONBLOCK: opening a FIFO without a writer must not wait. It has no effect on regular files.
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (file.get() < 0) return SystemError(path, "cannot open", errno);
  struct stat info {};
  if (fstat(file.get(), &info) != 0) return SystemError(path, "cannot stat", errno);
  if (S_ISDIR(info.st_mode)) return Status(StatusCode::kIoError, path + ": is a directory, not a file");
  if (!S_ISREG(info.st_mode)) return Status(StatusCode::kIoError, path + ": is not a regular file");
  if (info.st_size == 0) return Status(StatusCode::kCorruptData, path + ": the file is empty");
  if (static_cast<uint64_t>(info.st_size) > std::numeric_limits<size_t>::max() / 2) {
    return Status(StatusCode::kResourceExhausted, path + ": the file is too large for this machine's address space");
  }
  const size_t size_bytes = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) return SystemError(path, "cannot map", errno);
  return std::unique_ptr<MappedFile>(new MappedFile(static_cast<const uint8_t*>(data), size_bytes));
}

MappedFile::~MappedFile() { munmap(const_cast<uint8_t*>(data_), size_bytes_); }

}  // namespace loopserve
