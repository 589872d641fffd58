#include "src/selection/xattention/block_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace loopserve {
namespace {

using testing::ElementsAre;

/// The published selection step by step: the first and the own block lead the order, whatever they weigh; a block is
/// taken if what comes before it in the order holds less than the threshold of all.
std::vector<int32_t> PlainBlocks(const std::vector<float>& blocks, double threshold) {
  std::vector<int32_t> order(blocks.size());
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](int32_t b) {
    const bool forced = b == 0 || b + 1 == static_cast<int32_t>(blocks.size());
    return forced ? 1e9 : double{blocks[static_cast<size_t>(b)]};
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return rank(a) > rank(b); });
  const double required = threshold * std::accumulate(blocks.begin(), blocks.end(), 0.0);
  std::vector<int32_t> taken;
  double before = 0;
  for (const int32_t block : order) {
    if (rank(block) < 1e9 && !(before < required)) break;
    taken.push_back(block);
    before += blocks[static_cast<size_t>(block)];
  }
  std::sort(taken.begin(), taken.end());
  return taken;
}

TEST(XAttentionBlocksTest, AreThePublishedSelection) {
  std::mt19937 random(5);
  for (const size_t n : {1u, 2u, 3u, 7u, 40u}) {
    for (int trial = 0; trial < 20; ++trial) {
      std::vector<float> blocks(n);
      for (float& block : blocks) block = static_cast<float>(random() % 8) / 8.0f;  // ties, zeros, exact sums
      for (const double threshold : {0.25, 0.5, 0.9, 1.0}) {
        EXPECT_EQ(ChooseBlocks(blocks, threshold), PlainBlocks(blocks, threshold)) << n << " " << threshold;
      }
    }
  }
}

TEST(XAttentionBlocksTest, TheFirstAndTheOwnAreAlwaysTaken) {
  EXPECT_THAT(ChooseBlocks(std::vector<float>{1}, 0.9), ElementsAre(0));
  EXPECT_THAT(ChooseBlocks(std::vector<float>{0, 0}, 0.9), ElementsAre(0, 1));
  EXPECT_THAT(ChooseBlocks(std::vector<float>{0, 8, 1, 1, 0}, 0.5), ElementsAre(0, 1, 4));
  EXPECT_THAT(ChooseBlocks(std::vector<float>{4, 1, 1, 4}, 0.8), ElementsAre(0, 3));
  EXPECT_THAT(ChooseBlocks(std::vector<float>{2, 1, 1, 2}, 0.8), ElementsAre(0, 1, 3)) << "the lower index of equals";
}

TEST(XAttentionBlocksTest, WithoutUsableWeightsAllBlocks) {
  EXPECT_THAT(ChooseBlocks(std::vector<float>{1, NAN, 1, 1}, 0.1), ElementsAre(0, 1, 2, 3));
}

TEST(XAttentionBlocksTest, GroupsAddUpInTheirBlocks) {
  std::vector<float> blocks(3, 1.0f);
  AddGroupWeights(std::vector<float>{1, 2, 3, 4, 5}, 2, blocks);
  EXPECT_THAT(blocks, ElementsAre(4, 8, 6));
}

}  // namespace
}  // namespace loopserve
