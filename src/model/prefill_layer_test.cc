// How a layer's items are handed out: each once, with pauses in which others compute, until somebody cancels.
#include "src/model/prefill_layer.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace loopserve {
namespace {

constexpr int64_t kItems = 60;

class PrefillLayerTest : public testing::Test {
 protected:
  void SetUp() override {
    threads_ = ComputeThreads::Create(2).value();
    layer_.threads = threads_.get();
    layer_.states = states_;
    layer_.control = &control_;
  }

  /// Items that take 5 ms each; how often each was handed out.
  Status Run(const std::function<void(int64_t)>& body = {}) {
    for (auto& n : handed_out_) n = 0;
    return layer_.ForItems(kItems, [&](int64_t item, PrefillThread& state) {
      EXPECT_FALSE(is_paused_) << item;
      EXPECT_TRUE(&state == &states_[0] || &state == &states_[1]);
      ++handed_out_[static_cast<size_t>(item)];
      if (body) body(item);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    });
  }

  std::unique_ptr<ComputeThreads> threads_;
  std::vector<PrefillThread> states_{2};
  RunControl control_;
  PrefillLayer layer_;
  std::atomic<bool> is_paused_{false};
  std::array<std::atomic<int>, kItems> handed_out_{};
};

TEST_F(PrefillLayerTest, AllThreadsPauseForOthersAndEachItemIsDoneOnce) {
  int pauses = 0;
  control_.yield = [&] {
    is_paused_ = true;
    ++pauses;
    std::atomic<int> others{0};
    EXPECT_TRUE(threads_->Parallel([&](int, int) { ++others; }).ok());
    EXPECT_EQ(others, 2);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    is_paused_ = false;
  };
  ASSERT_TRUE(Run().ok());
  for (const auto& count : handed_out_) EXPECT_EQ(count, 1);
  EXPECT_GE(pauses, 2) << "150 ms of work for two threads";
  EXPECT_GE(states_[0].paused_ms, 2.0 * pauses);
  EXPECT_EQ(states_[1].paused_ms, 0);
}

TEST_F(PrefillLayerTest, NobodyPausesForNobody) {
  ASSERT_TRUE(Run().ok());
  for (const auto& count : handed_out_) EXPECT_EQ(count, 1);
  EXPECT_EQ(states_[0].paused_ms, 0);
}

TEST_F(PrefillLayerTest, CancellingEndsItBeforeTheLastItem) {
  std::atomic<bool> cancel{false};
  control_.cancel = &cancel;
  EXPECT_EQ(Run([&](int64_t item) { cancel = cancel || item == 10; }).code(), StatusCode::kCancelled);
  int64_t n = 0;
  for (const auto& count : handed_out_) n += count;
  EXPECT_GE(n, 11);
  EXPECT_LT(n, kItems);
}

TEST_F(PrefillLayerTest, CancellingInAPauseEndsIt) {
  std::atomic<bool> cancel{false};
  control_.cancel = &cancel;
  control_.yield = [&] { cancel = true; };
  EXPECT_EQ(Run().code(), StatusCode::kCancelled);
  EXPECT_EQ(handed_out_.back(), 0);
}

}  // namespace
}  // namespace loopserve
