// A library to be preloaded into the program under test: its n-th step that changes a folder of sessions is its last,
// or fails. So the real program dies at every step of a save, and has no seam for it.
//
// LS_STEP_FOLDER: the folder, as the system shows it. LS_STEP: which step, from 0. LS_STEP_ERRNO: that step and all
// that follow fail with it; without it the process is killed there. LS_STEP_HALF: after half of a write has been done.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

bool IsInFolder(int fd) {
  static const char* const folder = std::getenv("LS_STEP_FOLDER");
  if (folder == nullptr) return false;
  char target[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t n = readlink(link.c_str(), target, sizeof(target) - 1);
  return n > 0 && std::string_view(target, static_cast<size_t>(n)).starts_with(folder);
}

bool FailsWithErrno() { return std::getenv("LS_STEP_ERRNO") != nullptr; }

/// Whether this step is the one. Never returns for steps that are no writes where the process is to die.
bool IsTheStep(int fd, bool is_write = false) {
  static std::atomic<int> steps = 0;
  if (!IsInFolder(fd)) return false;
  const char* wanted = std::getenv("LS_STEP");
  const int at = wanted != nullptr ? std::atoi(wanted) : -1;
  const int step = steps++;
  if (at < 0 || step < at) return false;
  if (FailsWithErrno()) {
    errno = std::atoi(std::getenv("LS_STEP_ERRNO"));
    return true;
  }
  if (step > at) return false;
  if (!is_write || std::getenv("LS_STEP_HALF") == nullptr) kill(getpid(), SIGKILL);
  return true;
}

template <typename Write>
ssize_t StepWrite(Write write, int fd, const iovec* parts, int n_parts, off_t offset) {
  if (!IsTheStep(fd, /*is_write=*/true)) return write(fd, parts, n_parts, offset);
  if (FailsWithErrno()) return -1;
  const iovec half = {parts[0].iov_base, (parts[0].iov_len + 1) / 2};
  write(fd, &half, 1, offset);
  kill(getpid(), SIGKILL);
  return -1;
}

using WriteCall = ssize_t (*)(int, const iovec*, int, off_t);
using FdCall = int (*)(int);

}  // namespace

extern "C" {

ssize_t pwritev(int fd, const iovec* parts, int n_parts, off_t offset) {
  return StepWrite(Next<WriteCall>("pwritev"), fd, parts, n_parts, offset);
}
ssize_t pwritev64(int fd, const iovec* parts, int n_parts, off_t offset) {
  return StepWrite(Next<WriteCall>("pwritev64"), fd, parts, n_parts, offset);
}
int fsync(int fd) { return IsTheStep(fd) ? -1 : Next<FdCall>("fsync")(fd); }
int fdatasync(int fd) { return IsTheStep(fd) ? -1 : Next<FdCall>("fdatasync")(fd); }
int renameat(int from_dir, const char* from, int to_dir, const char* to) {
  if (IsTheStep(from_dir)) return -1;
  return Next<int (*)(int, const char*, int, const char*)>("renameat")(from_dir, from, to_dir, to);
}
int unlinkat(int dir, const char* name, int flags) {
  if (IsTheStep(dir)) return -1;
  return Next<int (*)(int, const char*, int)>("unlinkat")(dir, name, flags);
}
}
