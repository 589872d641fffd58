#include "src/fetch/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "src/base/errno_status.h"
#include "src/base/unique_fd.h"

extern char** environ;

namespace loopserve {
namespace {

constexpr size_t kTailBytes = 4096;

Result<pid_t> Spawn(const std::vector<std::string>& argv, int output_fd) {
  std::vector<char*> pointers;
  for (const std::string& argument : argv) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output_fd, STDERR_FILENO);
  // A group of its own: the terminal's Ctrl-C reaches us alone, and we end the child with all that it started.
  // Signals that we ignore would stay ignored in the child, so they are set back.
  sigset_t defaults;
  sigemptyset(&defaults);
  for (int signal_number : {SIGINT, SIGPIPE, SIGXFSZ}) sigaddset(&defaults, signal_number);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, pointers[0], &actions, &attributes, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return ErrnoStatus("cannot run " + argv[0], error);
  return pid;
}

int WaitFor(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void EndGroup(pid_t pid) {
  kill(-pid, SIGTERM);
  for (int i = 0; i < 30; ++i) {
    siginfo_t info{};
    if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  kill(-pid, SIGKILL);
  WaitFor(pid);
}

// Reads until the child and all that inherited its output are done. False: cancelled.
bool ReadOutput(int fd, const std::atomic<bool>* cancel, std::string* tail) {
  char buffer[4096];
  while (true) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) return false;
    pollfd wanted{fd, POLLIN, 0};
    const int ready = poll(&wanted, 1, 50);
    if (ready < 0 && errno != EINTR) return true;
    if (ready <= 0) continue;
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return true;
    tail->append(buffer, static_cast<size_t>(n));
    if (tail->size() > kTailBytes) tail->erase(0, tail->size() - kTailBytes);
  }
}

}  // namespace

Result<ChildResult> RunChild(const std::vector<std::string>& argv, const std::atomic<bool>* cancel) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus("cannot create a pipe", errno);
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  LS_ASSIGN_OR_RETURN(const pid_t pid, Spawn(argv, write_end.get()));
  write_end.Reset();
  ChildResult result;
  if (!ReadOutput(read_end.get(), cancel, &result.output_tail)) {
    EndGroup(pid);
    return Status(StatusCode::kCancelled, "cancelled while running " + argv[0]);
  }
  result.exit_code = WaitFor(pid);
  return result;
}

}  // namespace loopserve
