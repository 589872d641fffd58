#include "src/model/compute_threads.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <new>

namespace loopserve {
namespace {

TEST(ComputeThreadsTest, EveryThreadIsCalledOnce) {
  auto threads = ComputeThreads::Create(3);
  ASSERT_TRUE(threads.ok());
  std::array<std::atomic<int>, 3> calls{};
  ASSERT_TRUE((*threads)
                  ->Parallel([&](int thread, int n_threads) {
                    EXPECT_EQ(n_threads, 3);
                    ++calls[static_cast<size_t>(thread)];
                  })
                  .ok());
  for (const auto& n : calls) EXPECT_EQ(n, 1);
}

TEST(ComputeThreadsTest, AThreadWithoutMemoryIsAnErrorAndThePoolLivesOn) {
  auto threads = ComputeThreads::Create(2);
  ASSERT_TRUE(threads.ok());
  std::atomic<int> finished = 0;
  const Status status = (*threads)->Parallel([&](int thread, int) {
    if (thread == 1) throw std::bad_alloc();
    ++finished;
  });
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(finished, 1);
  EXPECT_TRUE((*threads)->Parallel([&](int, int) { ++finished; }).ok());
  EXPECT_EQ(finished, 3);
}

}  // namespace
}  // namespace loopserve
