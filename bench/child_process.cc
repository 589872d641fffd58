#include "bench/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <utility>

#include "src/base/errno_status.h"

extern char** environ;

namespace loopserve::bench {
namespace {

constexpr size_t kMaxLineBytes = size_t{64} << 20;
constexpr size_t kErrorTailBytes = 2000;
constexpr std::chrono::milliseconds kGoodbye{2000};
constexpr int kCancelCheckMs = 100;

#ifndef MSG_NOSIGNAL
constexpr int MSG_NOSIGNAL = 0;
#endif

/// An empty file that no folder lists.
Result<UniqueFd> UnlinkedFile() {
  std::error_code error;
  std::string path = (std::filesystem::temp_directory_path(error) / "loopserve-XXXXXX").string();
  UniqueFd file(mkostemp(path.data(), O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus("cannot create " + path, errno);
  unlink(path.c_str());
  return file;
}

int MillisecondsUntil(std::chrono::steady_clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
}

}  // namespace

Result<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::vector<std::string>& arguments,
                                                          const std::atomic<bool>* cancel) {
  // A socket for its input: a write to a program that has ended is then an error and not a signal.
  int input[2], output[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, input) != 0) return ErrnoStatus("cannot create a socket", errno);
  UniqueFd input_ours(input[0]), input_theirs(input[1]);
  if (pipe(output) != 0) return ErrnoStatus("cannot create a pipe", errno);
  UniqueFd output_ours(output[0]), output_theirs(output[1]);
  // Programs that are started later must not inherit these: the end of this one would go unnoticed.
  for (const int fd : {input[0], input[1], output[0], output[1]}) fcntl(fd, F_SETFD, FD_CLOEXEC);
  LS_ASSIGN_OR_RETURN(UniqueFd errors, UnlinkedFile());

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input_theirs.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output_theirs.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, errors.get(), STDERR_FILENO);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus("cannot start " + arguments[0], error);
  std::unique_ptr<ChildProcess> child(
      new ChildProcess(pid, std::move(input_ours), std::move(output_ours), std::move(errors), arguments[0]));
  child->cancel_ = cancel;
  return child;
}

ChildProcess::ChildProcess(pid_t pid, UniqueFd input, UniqueFd output, UniqueFd errors, std::string name)
    : pid_(pid),
      input_(std::move(input)),
      output_(std::move(output)),
      errors_(std::move(errors)),
      name_(std::move(name)) {}

ChildProcess::~ChildProcess() {
  input_.Reset();
  output_.Reset();
  if (pid_ < 0) return;
  const auto deadline = Clock::now() + (broken_ ? std::chrono::milliseconds(0) : kGoodbye);
  while (waitpid(pid_, nullptr, WNOHANG) == 0) {
    if (Clock::now() >= deadline) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

Result<std::string> ChildProcess::Ask(std::string_view line, std::chrono::milliseconds timeout) {
  if (broken_) return Status(StatusCode::kIoError, name_ + " is not running any more");
  const auto deadline = Clock::now() + timeout;
  Status sent = Send(std::string(line) + "\n", deadline);
  if (!sent.ok()) {
    broken_ = true;
    return sent;
  }
  Result<std::string> answer = ReadLine(deadline);
  if (!answer.ok()) broken_ = true;
  return answer;
}

Status ChildProcess::Wait(int fd, short events, Clock::time_point deadline, const char* late) {
  for (;;) {
    if (cancel_ != nullptr && cancel_->load()) return Status(StatusCode::kCancelled, "interrupted");
    pollfd waiting{fd, events, 0};
    const int ready = poll(&waiting, 1, std::min(MillisecondsUntil(deadline), kCancelCheckMs));
    if (ready > 0) return Status::Ok();
    if (ready < 0 && errno != EINTR) return ErrnoStatus("cannot wait for " + name_, errno);
    if (Clock::now() >= deadline) return Status(StatusCode::kIoError, name_ + late + LastErrorLines());
  }
}

Status ChildProcess::Send(std::string_view text, Clock::time_point deadline) {
  while (!text.empty()) {
    LS_RETURN_IF_ERROR(Wait(input_.get(), POLLOUT, deadline, " does not take its input: timed out"));
    const ssize_t written = send(input_.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (written < 0) return Ended();
    text.remove_prefix(static_cast<size_t>(written));
  }
  return Status::Ok();
}

Result<std::string> ChildProcess::ReadLine(Clock::time_point deadline) {
  for (;;) {
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    if (buffer_.size() > kMaxLineBytes) return Status(StatusCode::kIoError, name_ + " wrote an endless line");
    LS_RETURN_IF_ERROR(Wait(output_.get(), POLLIN, deadline, " did not answer in time"));
    char bytes[1 << 16];
    const ssize_t got = read(output_.get(), bytes, sizeof bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Ended();
    buffer_.append(bytes, static_cast<size_t>(got));
  }
}

Status ChildProcess::Ended() {
  input_.Reset();
  output_.Reset();
  int state = 0;
  const auto deadline = Clock::now() + kGoodbye;
  pid_t done = 0;
  while ((done = waitpid(pid_, &state, WNOHANG)) == 0 && Clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::string how = " closed its output";
  if (done == pid_) {
    pid_ = -1;
    if (WIFSIGNALED(state)) how = " was ended by signal " + std::to_string(WTERMSIG(state));
    if (WIFEXITED(state)) how = " ended with exit code " + std::to_string(WEXITSTATUS(state));
  }
  return Status(StatusCode::kIoError, name_ + how + LastErrorLines());
}

std::string ChildProcess::LastErrorLines() const {
  const off_t size = lseek(errors_.get(), 0, SEEK_END);
  if (size <= 0) return "";
  std::string tail(std::min<size_t>(static_cast<size_t>(size), kErrorTailBytes), '\0');
  const ssize_t got = pread(errors_.get(), tail.data(), tail.size(), size - static_cast<off_t>(tail.size()));
  tail.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  while (!tail.empty() && tail.back() == '\n') tail.pop_back();
  return tail.empty() ? "" : ": " + tail;
}

}  // namespace loopserve::bench
