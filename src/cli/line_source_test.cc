#include "src/cli/line_source.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "src/base/unique_fd.h"

namespace loopserve {
namespace {

TEST(LineSourceTest, SplitsLinesAndKeepsTheLastOne) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const std::string text = "one\r\n\ntwo\nlast";
  ASSERT_EQ(write(write_end.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  write_end.Reset();
  FdLineSource source(read_end.get());
  std::vector<std::string> lines;
  std::string line;
  while (*source.Read(&line) == LineKind::kLine) lines.push_back(line);
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "", "two", "last"}));
  EXPECT_EQ(*source.Read(&line), LineKind::kEnd);
}

TEST(LineSourceTest, NoticesASignalWhileWaiting) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);
  struct sigaction action {
  }, old{};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, &old);
  std::atomic<bool> done{false};
  std::thread sender([&, reader = pthread_self()] {
    while (!done) {
      pthread_kill(reader, SIGUSR1);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
  FdLineSource source(read_end.get());
  std::string line;
  const Result<LineKind> kind = source.Read(&line);
  done = true;
  sender.join();
  sigaction(SIGUSR1, &old, nullptr);
  ASSERT_TRUE(kind.ok());
  EXPECT_EQ(*kind, LineKind::kInterrupted);
}

TEST(LineSourceTest, ReportsAReadError) {
  FdLineSource source(-1);
  std::string line;
  EXPECT_EQ(source.Read(&line).status().code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace loopserve
