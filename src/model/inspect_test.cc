#include "loopserve/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "src/model/attention_inspector.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

std::vector<AttentionLine> Lines(const std::vector<int32_t>& indices) {
  std::vector<AttentionLine> lines;
  for (const int32_t index : indices) lines.push_back({index, 0.5f});
  return lines;
}

TEST(OverlapOfLinesTest, CountsWhatBothTurnsCouldChoose) {
  const LineOverlap overlap = OverlapOfLines(Lines({0, 3, 5, 9}), Lines({0, 4, 5, 10, 12}), 10);
  EXPECT_EQ(overlap.possible, 10);
  EXPECT_EQ(overlap.before, 4);
  EXPECT_EQ(overlap.now, 3);  // 10 and 12 did not exist before
  EXPECT_EQ(overlap.both, 2);
  EXPECT_DOUBLE_EQ(overlap.of_smaller(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(overlap.jaccard(), 2.0 / 5);
  EXPECT_DOUBLE_EQ(overlap.by_chance(), 0.4);
}

TEST(OverlapOfLinesTest, EqualDisjointAndEmpty) {
  EXPECT_EQ(OverlapOfLines(Lines({1, 2}), Lines({1, 2}), 8).of_smaller(), 1.0);
  EXPECT_EQ(OverlapOfLines(Lines({1, 2}), Lines({1, 2}), 8).jaccard(), 1.0);
  EXPECT_EQ(OverlapOfLines(Lines({1, 2}), Lines({0, 3}), 8).jaccard(), 0.0);
  const LineOverlap one_empty = OverlapOfLines(Lines({1}), {}, 8);
  EXPECT_TRUE(one_empty.any());
  EXPECT_EQ(one_empty.of_smaller(), 0.0);
  EXPECT_EQ(one_empty.jaccard(), 0.0);
  EXPECT_FALSE(OverlapOfLines({}, Lines({9}), 8).any());
  EXPECT_EQ(OverlapOfLines({}, {}, 8).jaccard(), 0.0);
}

TEST(OverlapOfLinesTest, AgreesWithSetsOnRandomLines) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::set<int32_t> a, b;
    for (int i = 0; i < 40; ++i) {
      if (random() % 2 == 0) a.insert(static_cast<int32_t>(random() % 60));
      if (random() % 3 == 0) b.insert(static_cast<int32_t>(random() % 90));
    }
    std::set<int32_t> both, possible_b;
    for (const int32_t index : b) {
      if (index < 60) possible_b.insert(index);
      if (a.contains(index)) both.insert(index);
    }
    const LineOverlap overlap = OverlapOfLines(Lines({a.begin(), a.end()}), Lines({b.begin(), b.end()}), 60);
    EXPECT_EQ(overlap.before, static_cast<int64_t>(a.size()));
    EXPECT_EQ(overlap.now, static_cast<int64_t>(possible_b.size()));
    EXPECT_EQ(overlap.both, static_cast<int64_t>(both.size()));
  }
}

TEST(InspectOptionsTest, SaysWhatIsOutOfRange) {
  const std::vector<int64_t> windows = {32, 0, 32, 0};
  const auto message = [&](const InspectOptions& options) { return options.Validate(windows, 4).message(); };
  EXPECT_TRUE(InspectOptions{}.Validate(windows, 4).ok());
  EXPECT_TRUE((InspectOptions{.layer = 3, .map_head = 3}).Validate(windows, 4).ok());
  EXPECT_THAT(message({.alpha = 0}), HasSubstr("alpha"));
  EXPECT_THAT(message({.alpha = 1.01}), HasSubstr("alpha"));
  EXPECT_THAT(message({.sample_rows = 0}), HasSubstr("1 to 4096"));
  EXPECT_THAT(message({.heldout_rows = -1}), HasSubstr("0 to 4096"));
  EXPECT_THAT(message({.layer = 4}), HasSubstr("0 to 3, not 4"));
  EXPECT_THAT(message({.layer = -1}), HasSubstr("0 to 3, not -1"));
  EXPECT_THAT(message({.layer = 1, .map_head = 4}), HasSubstr("0 to 3, not 4"));
  EXPECT_THAT(message({.map_head = 0}), HasSubstr("needs its layer"));
  const Status sliding = (InspectOptions{.layer = 2}).Validate(windows, 4);
  EXPECT_EQ(sliding.code(), StatusCode::kUnsupported);
  EXPECT_THAT(sliding.message(), HasSubstr("sliding window of 32 keys and is always dense; layers without one: 1, 3"));
}

TEST(FewestHoldingTest, EqualsTheSortedSum) {
  std::mt19937 random(7);
  std::exponential_distribution<float> weight(1.0f);
  for (int n = 1; n < 300; n += 7) {
    for (const double share : {0.1, 0.5, 0.9, 0.955, 1.0}) {
      std::vector<float> weights(static_cast<size_t>(n));
      for (float& w : weights) w = random() % 5 == 0 ? 0.0f : weight(random);
      std::vector<float> sorted = weights;
      std::ranges::sort(sorted, std::greater<>());
      const double target = share * (1 - 1e-9) * std::accumulate(sorted.begin(), sorted.end(), 0.0);
      int64_t expected = 0;
      for (double held = 0; held < target; ++expected) held += sorted[static_cast<size_t>(expected)];
      EXPECT_EQ(FewestHolding(weights, share), expected) << n << " weights, share " << share;
    }
  }
  std::vector<float> nothing(9);
  EXPECT_EQ(FewestHolding(nothing, 0.9), 0);
  EXPECT_EQ(FewestHolding({}, 0.9), 0);
}

}  // namespace
}  // namespace loopserve
