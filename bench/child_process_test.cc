#include "bench/child_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

namespace loopserve::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(ChildProcessTest, AnswersLineByLine) {
  auto cat = ChildProcess::Start({"cat"});
  ASSERT_TRUE(cat.ok()) << cat.status().message();
  EXPECT_EQ(*(*cat)->Ask("one", seconds(10)), "one");
  EXPECT_EQ(*(*cat)->Ask("", seconds(10)), "");
}

TEST(ChildProcessTest, SendsMoreThanASocketHolds) {
  auto count = ChildProcess::Start({"sh", "-c", "head -n 1 | wc -c"});
  ASSERT_TRUE(count.ok()) << count.status().message();
  EXPECT_EQ(std::stoi((*count)->Ask(std::string(3 << 20, 'x'), seconds(60)).value()), (3 << 20) + 1);
}

TEST(ChildProcessTest, AMissingProgramIsNotFound) {
  const auto child = ChildProcess::Start({"/nonexistent/program"});
  ASSERT_FALSE(child.ok());
  EXPECT_EQ(child.status().code(), StatusCode::kNotFound);
}

TEST(ChildProcessTest, SaysHowAProgramEndedAndWhatItSaidLast) {
  auto child = ChildProcess::Start({"sh", "-c", "read line; echo it broke >&2; exit 7"});
  ASSERT_TRUE(child.ok());
  const auto answer = (*child)->Ask("hello", seconds(10));
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.status().code(), StatusCode::kIoError);
  EXPECT_THAT(answer.status().message(), testing::HasSubstr("exit code 7"));
  EXPECT_THAT(answer.status().message(), testing::HasSubstr("it broke"));
  EXPECT_EQ((*child)->Ask("again", seconds(10)).status().code(), StatusCode::kIoError);
}

TEST(ChildProcessTest, ASilentProgramTimesOutAndIsKilled) {
  auto child = ChildProcess::Start({"sleep", "600"});
  ASSERT_TRUE(child.ok());
  EXPECT_THAT((*child)->Ask("hello", milliseconds(50)).status().message(), testing::HasSubstr("in time"));
  const auto start = std::chrono::steady_clock::now();
  child->reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(20));
}

TEST(ChildProcessTest, IsCancelledWhileItWaits) {
  std::atomic<bool> cancel = false;
  auto child = ChildProcess::Start({"sleep", "600"}, &cancel);
  ASSERT_TRUE(child.ok());
  std::thread canceller([&] {
    std::this_thread::sleep_for(milliseconds(50));
    cancel = true;
  });
  EXPECT_EQ((*child)->Ask("hello", seconds(600)).status().code(), StatusCode::kCancelled);
  canceller.join();
}

}  // namespace
}  // namespace loopserve::bench
