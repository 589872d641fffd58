#include "src/cli/line_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "src/base/temp_dir.h"
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
  const std::atomic<bool> interrupt{false};
  FdLineSource source(read_end.get(), interrupt);
  std::vector<std::string> lines;
  std::string line;
  while (*source.Read(&line) == LineKind::kLine) lines.push_back(line);
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "", "two", "last"}));
  EXPECT_EQ(*source.Read(&line), LineKind::kEnd);
}

TEST(LineSourceTest, NoticesAnInterruptWhileWaitingAndDropsWhatWasTyped) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);
  ASSERT_EQ(write(write_end.get(), "half", 4), 4);
  std::atomic<bool> interrupt{false};
  std::thread sender([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    interrupt = true;
  });
  FdLineSource source(read_end.get(), interrupt);
  std::string line;
  const Result<LineKind> kind = source.Read(&line);
  sender.join();
  ASSERT_TRUE(kind.ok());
  EXPECT_EQ(*kind, LineKind::kInterrupted);
  interrupt = false;
  ASSERT_EQ(write(write_end.get(), "new\n", 4), 4);
  ASSERT_EQ(*source.Read(&line), LineKind::kLine);
  EXPECT_EQ(line, "new");
}

TEST(LineSourceTest, ReportsAReadError) {
  const std::atomic<bool> interrupt{false};
  TempDir dir;
  const UniqueFd folder(open(dir.path().c_str(), O_RDONLY));
  FdLineSource source(folder.get(), interrupt);
  std::string line;
  EXPECT_EQ(source.Read(&line).status().code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace loopserve
