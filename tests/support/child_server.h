// `loopserve serve` as a child of a test, on loopback. Thread rule: one thread.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace loopserve {

class ChildServer {
 public:
  using Environment = std::vector<std::pair<std::string, std::string>>;

  /// Starts it; what it says goes to `log`. Ready: it listens and has its model.
  ChildServer(const std::string& program, std::vector<std::string> arguments, std::string log,
              const Environment& environment = {})
      : log_(std::move(log)) {
    arguments.insert(arguments.begin(), {program, "serve", "--port", "0", "--threads", "1", "--temperature", "0"});
    unlink(log_.c_str());  // of a server before
    pid_ = fork();
    if (pid_ == 0) {
      const int out = open(log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
      dup2(out, STDOUT_FILENO);
      dup2(out, STDERR_FILENO);
      for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      execv(program.c_str(), argv.data());
      _exit(127);
    }
    while (port_ == 0 && IsAlive()) {
      const std::string said = Log();
      const size_t at = said.find(" on http://127.0.0.1:");
      if (at != std::string::npos && said.find('\n', at) != std::string::npos)
        port_ = std::atoi(said.c_str() + at + 21);
      if (port_ == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  ~ChildServer() {
    if (IsAlive()) Kill(SIGKILL);
  }
  ChildServer(const ChildServer&) = delete;
  ChildServer& operator=(const ChildServer&) = delete;

  /// 0: it did not come so far.
  int port() const { return port_; }
  std::string Log() const {
    std::ifstream in(log_);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  bool IsAlive() {
    if (!state_) {
      int state = 0;
      if (waitpid(pid_, &state, WNOHANG) == pid_) state_ = state;
    }
    return !state_;
  }
  /// Sends a signal and waits for the end.
  void Kill(int signal) {
    kill(pid_, signal);
    Wait();
  }
  void Signal(int signal) { kill(pid_, signal); }
  void Wait() {
    int state = 0;
    if (!state_ && waitpid(pid_, &state, 0) == pid_) state_ = state;
  }
  /// Of a child that has ended; -1: by a signal.
  int exit_code() const { return state_ && WIFEXITED(*state_) ? WEXITSTATUS(*state_) : -1; }

 private:
  const std::string log_;
  pid_t pid_ = -1;
  int port_ = 0;
  std::optional<int> state_;
};

}  // namespace loopserve
