#include "bench/logits_puller.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace loopserve::bench {
namespace {

LogitsSource CountingSource(int rows, std::atomic<int>* made, const Status& end = Status::Ok()) {
  return [=](const LogitsCallback& on_logits) {
    for (int i = 0; i < rows; ++i) {
      const std::vector<float> row = {static_cast<float>(i)};
      ++*made;
      on_logits(i, row);
    }
    return end;
  };
}

TEST(LogitsPullerTest, GivesRowByRowAndThenNothing) {
  std::atomic<int> made = 0;
  LogitsPuller puller(CountingSource(3, &made));
  for (int i = 0; i < 3; ++i) {
    const auto row = puller.Next();
    ASSERT_TRUE(row.ok());
    ASSERT_EQ(row->size(), 1u);
    EXPECT_EQ((*row)[0], static_cast<float>(i));
    EXPECT_EQ(made, i + 1) << "rows are made when they are asked for";
  }
  EXPECT_TRUE(puller.Next()->empty());
  EXPECT_TRUE(puller.Next()->empty());
  EXPECT_TRUE(puller.Finish().ok());
}

TEST(LogitsPullerTest, FinishSkipsWhatIsLeft) {
  std::atomic<int> made = 0;
  LogitsPuller puller(CountingSource(100, &made));
  ASSERT_TRUE(puller.Next().ok());
  EXPECT_TRUE(puller.Finish().ok());
  EXPECT_EQ(made, 100);
}

TEST(LogitsPullerTest, ReportsTheSourcesError) {
  std::atomic<int> made = 0;
  LogitsPuller puller(CountingSource(1, &made, Status(StatusCode::kCancelled, "stop")));
  EXPECT_TRUE(puller.Next().ok());
  EXPECT_EQ(puller.Next().status().code(), StatusCode::kCancelled);
  EXPECT_EQ(puller.Finish().code(), StatusCode::kCancelled);
}

TEST(LogitsPullerTest, MayBeDestroyedBeforeAndInTheMiddle) {
  std::atomic<int> made = 0;
  { LogitsPuller unused(CountingSource(5, &made)); }
  {
    LogitsPuller used(CountingSource(5, &made));
    ASSERT_TRUE(used.Next().ok());
  }
  EXPECT_EQ(made, 10);
}

}  // namespace
}  // namespace loopserve::bench
