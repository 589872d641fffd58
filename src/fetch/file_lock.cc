#include "src/fetch/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <chrono>
#include <thread>

#include "src/base/errno_status.h"
#include "src/base/paths.h"

namespace loopserve {

Result<FileLock> FileLock::Acquire(const std::filesystem::path& path, const std::atomic<bool>* cancel,
                                   const std::function<void()>& on_wait) {
  LS_RETURN_IF_ERROR(CreateDirs(path.parent_path()));
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!fd.valid()) return ErrnoStatus("cannot open the lock file " + path.string(), errno);
  bool told = false;
  while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return ErrnoStatus("cannot lock " + path.string(), errno);
    if (!told && on_wait) on_wait();
    told = true;
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      return Status(StatusCode::kCancelled, "cancelled while another process pulls the same model");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return FileLock(std::move(fd));
}

}  // namespace loopserve
