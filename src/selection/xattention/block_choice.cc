#include "src/selection/xattention/block_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace loopserve {

void AddGroupWeights(std::span<const float> weights, int64_t groups_per_block, std::span<float> blocks) {
  for (size_t i = 0; i < weights.size(); ++i) blocks[i / static_cast<size_t>(groups_per_block)] += weights[i];
}

std::vector<int32_t> ChooseBlocks(std::span<const float> blocks, double threshold) {
  std::vector<int32_t> order(blocks.size());
  std::iota(order.begin(), order.end(), 0);
  const double total = std::accumulate(blocks.begin(), blocks.end(), 0.0);
  if (!std::isfinite(total) || order.size() <= 2) return order;
  double missing = threshold * total - blocks.front() - blocks.back();
  const auto heavier = [&](int32_t a, int32_t b) {
    const float x = blocks[static_cast<size_t>(a)];
    const float y = blocks[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::sort(order.begin() + 1, order.end() - 1, heavier);
  std::vector<int32_t> chosen = {0, order.back()};
  for (auto next = order.begin() + 1; missing > 0 && next != order.end() - 1; ++next) {
    missing -= blocks[static_cast<size_t>(*next)];
    chosen.push_back(*next);
  }
  std::ranges::sort(chosen);
  return chosen;
}

}  // namespace loopserve
