// Each eviction method's choice against a plain implementation of its published formula, position by position.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "src/selection/eviction/adakv.h"
#include "src/selection/eviction/eviction_choice.h"
#include "src/selection/eviction/h2o.h"
#include "src/selection/eviction/pyramidkv.h"
#include "src/selection/eviction/snapkv.h"
#include "src/selection/eviction/streaming.h"

namespace loopserve {
namespace {

using Weights = std::vector<float>;
using Kept = std::vector<int32_t>;

/// Random weights, of which many are equal where levels is small.
Weights Random(int n, unsigned seed, int levels = 1 << 20) {
  std::mt19937 random(seed);
  Weights weights(static_cast<size_t>(n));
  for (float& w : weights)
    w = static_cast<float>(random() % static_cast<unsigned>(levels)) / static_cast<float>(levels);
  return weights;
}

/// The `n` best indices of score[0, n_older), one after another: the largest, of equal ones the last.
std::set<int32_t> PlainTop(const Weights& score, int64_t n_older, int64_t n) {
  std::set<int32_t> taken;
  while (static_cast<int64_t>(taken.size()) < n) {
    int32_t best = -1;
    for (int32_t t = 0; t < n_older; ++t) {
      if (taken.contains(t)) continue;
      if (best < 0 || score[static_cast<size_t>(t)] >= score[static_cast<size_t>(best)]) best = t;
    }
    taken.insert(best);
  }
  return taken;
}

Weights PlainPool(const Weights& weight, int64_t n_older, int kernel) {
  Weights pooled;
  for (int64_t t = 0; t < n_older; ++t) {
    float largest = 0;
    for (int64_t s = 0; s < n_older; ++s) {
      if (std::abs(s - t) <= kernel / 2) largest = std::max(largest, weight[static_cast<size_t>(s)]);
    }
    pooled.push_back(largest);
  }
  return pooled;
}

Kept PlainSnapKv(const Weights& weight, int64_t budget, int64_t window, int kernel) {
  const auto n = static_cast<int64_t>(weight.size());
  if (n <= budget) {
    Kept all(weight.size());
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  const std::set<int32_t> top = PlainTop(PlainPool(weight, n - window, kernel), n - window, budget - window);
  Kept kept(top.begin(), top.end());
  for (int64_t t = n - window; t < n; ++t) kept.push_back(static_cast<int32_t>(t));
  return kept;
}

TEST(SnapKvTest, IsThePublishedFormula) {
  for (const int n : {1, 5, 31, 32, 33, 100, 257}) {
    for (const auto& [budget, window, kernel] :
         {std::tuple{33, 32, 7}, {40, 8, 7}, {64, 32, 5}, {2, 1, 1}, {100, 64, 63}, {257, 256, 3}}) {
      for (const int levels : {3, 1 << 20}) {
        const Weights weight = Random(n, static_cast<unsigned>(n), levels);
        const Kept kept = ChooseSnapKv(weight, budget, window, kernel);
        EXPECT_EQ(kept, PlainSnapKv(weight, budget, window, kernel)) << n << " " << budget << " " << kernel;
        EXPECT_EQ(std::ssize(kept), std::min(n, budget)) << "exact";
      }
    }
  }
}

TEST(SnapKvTest, PoolingSpreadsAWeightAndStopsAtTheWindow) {
  Weights weight(20, 0.0f);
  weight[5] = 1.0f;
  weight[17] = 9.0f;  // in the window: says nothing of older keys
  EXPECT_EQ(ChooseSnapKv(weight, 7, 4, 3), (Kept{4, 5, 6, 16, 17, 18, 19}));
  weight[9] = NAN;
  EXPECT_EQ(ChooseSnapKv(weight, 7, 4, 3), (Kept{4, 5, 6, 16, 17, 18, 19})) << "NaN is no weight";
}

TEST(PyramidKvTest, IsThePublishedFormula) {
  const PyramidShape shape = {1024, 32, 20, 24};
  // min = 992 / 20 = 49, max = 1984 - 49 = 1935, a step of (1935 - 49) / 23 = 82.
  for (int layer = 0; layer < 24; ++layer) EXPECT_EQ(PyramidBudget(shape, layer, 10000), 1935 - 82 * layer + 32);
  // 1,990 tokens: max = 1958 is still more than 1935; 1,984 tokens: 1952; both as above. Below twice 992 it is even.
  EXPECT_EQ(PyramidBudget(shape, 0, 1984), 1935 + 32);
  EXPECT_EQ(PyramidBudget(shape, 0, 1983), 1024);
  EXPECT_EQ(PyramidBudget(shape, 23, 1983), 1024);
  // A window so large that the first layer's share is more than there is: max = 300 - 100, min = 2 * 150 - 200.
  const PyramidShape flat = {250, 100, 1000, 5};
  EXPECT_EQ(PyramidBudget(flat, 0, 300), 200 + 100);
  EXPECT_EQ(PyramidBudget(flat, 4, 300), 100 + 100);
  EXPECT_EQ(PyramidBudget({64, 32, 20, 1}, 0, 5000), 64) << "one layer has the mean";
  EXPECT_EQ(PyramidBudget({64, 32, 1, 4}, 3, 5000), 64) << "beta 1: all the same";
}

TEST(PyramidKvTest, TheMeanIsTheBudget) {
  for (const int n_layers : {2, 7, 24, 32}) {
    for (const int64_t n_tokens : {2000, 2100, 9000}) {
      const PyramidShape shape = {1024, 32, 20, n_layers};
      double sum = 0;
      for (int layer = 0; layer < n_layers; ++layer) {
        const int64_t budget = PyramidBudget(shape, layer, n_tokens);
        EXPECT_GE(budget, 32);
        EXPECT_LE(budget, n_tokens);
        EXPECT_LE(budget, PyramidBudget(shape, std::max(0, layer - 1), n_tokens));
        sum += static_cast<double>(budget);
      }
      // The step is rounded down, by less than one for each layer after the first.
      EXPECT_GE(sum / n_layers, 1024);
      EXPECT_LT(sum / n_layers, 1024 + (n_layers - 1) / 2.0);
    }
  }
}

/// AdaKV by lists of (score, head, key), sorted as a whole.
std::vector<Kept> PlainAdaKv(const std::vector<Weights>& weights, const AdaKvSettings& s) {
  struct Key {
    float score;
    int head;
    int32_t key;
  };
  std::vector<Key> keys;
  const auto n_heads = static_cast<int>(weights.size());
  for (int h = 0; h < n_heads; ++h) {
    const int64_t n_older = std::max<int64_t>(0, std::ssize(weights[static_cast<size_t>(h)]) - s.window);
    const Weights pooled = PlainPool(weights[static_cast<size_t>(h)], n_older, s.kernel);
    for (int32_t t = 0; t < n_older; ++t) keys.push_back({pooled[static_cast<size_t>(t)], h, t});
  }
  std::ranges::sort(keys, [](const Key& a, const Key& b) {
    return std::tuple(-a.score, a.head, -a.key) < std::tuple(-b.score, b.head, -b.key);
  });
  const int64_t base = s.budget - s.window;
  const int64_t total = std::min<int64_t>(base * n_heads, std::ssize(keys));
  std::vector<int64_t> count(weights.size(), 0), own(weights.size(), 0);
  for (int64_t i = 0; i < total; ++i) ++count[static_cast<size_t>(keys[static_cast<size_t>(i)].head)];
  for (const Key& key : keys) ++own[static_cast<size_t>(key.head)];
  std::vector<std::set<int32_t>> kept(weights.size());
  int64_t left = total;
  std::vector<bool> taken(keys.size(), false);
  for (int h = 0; h < n_heads; ++h) {
    const auto index = static_cast<size_t>(h);
    const double share = static_cast<double>(count[index]) * (1 - s.alpha) + static_cast<double>(base) * s.alpha;
    int64_t room = std::min(own[index], static_cast<int64_t>(share + 1e-6));
    left -= room;
    for (size_t i = 0; i < keys.size() && room > 0; ++i) {
      if (keys[i].head != h) continue;
      kept[index].insert(keys[i].key);
      taken[i] = true;
      --room;
    }
  }
  for (size_t i = 0; i < keys.size() && left > 0; ++i) {
    if (taken[i]) continue;
    kept[static_cast<size_t>(keys[i].head)].insert(keys[i].key);
    --left;
  }
  std::vector<Kept> result;
  for (size_t h = 0; h < weights.size(); ++h) {
    for (auto t = std::max<int64_t>(0, std::ssize(weights[h]) - s.window); t < std::ssize(weights[h]); ++t) {
      kept[h].insert(static_cast<int32_t>(t));
    }
    result.emplace_back(kept[h].begin(), kept[h].end());
  }
  return result;
}

TEST(AdaKvTest, IsThePublishedFormulaAndItsBudgetIsExact) {
  for (const double alpha : {0.0, 0.2, 0.5, 1.0}) {
    for (const int n_heads : {1, 2, 3, 8}) {
      for (const int levels : {4, 1 << 20}) {
        std::vector<Weights> weights;
        int64_t n_all = 0;
        for (int h = 0; h < n_heads; ++h) {
          weights.push_back(Random(90 + 13 * (h % 3), static_cast<unsigned>(h + 1), levels));
          for (float& w : weights.back()) w *= static_cast<float>(1 + h);  // heads differ in what they hold
          n_all += std::ssize(weights.back());
        }
        for (const AdaKvSettings& settings :
             {AdaKvSettings{40, 8, 7, alpha}, {33, 32, 3, alpha}, {75, 10, 1, alpha}, {500, 32, 7, alpha}}) {
          const std::vector<Kept> kept = ChooseAdaKv(weights, settings);
          EXPECT_EQ(kept, PlainAdaKv(weights, settings)) << n_heads << " heads, alpha " << alpha;
          int64_t sum = 0;
          for (const Kept& head : kept) sum += std::ssize(head);
          EXPECT_EQ(sum, std::min(n_all, settings.budget * n_heads)) << "exact";
        }
      }
    }
  }
}

TEST(AdaKvTest, SharesOutByScoreAndKeepsTheSafeguard) {
  // Head 0 holds the eight heaviest; each head keeps a window of 2.
  std::vector<Weights> weights(2, Weights(12, 0.0f));
  for (int t = 0; t < 10; ++t) {
    weights[0][static_cast<size_t>(t)] = 10.0f + static_cast<float>(t);
    weights[1][static_cast<size_t>(t)] = 1.0f + 0.1f * static_cast<float>(t);
  }
  // base 4, alpha 0.5: counts 8 and 0 become 6 and 2.
  EXPECT_EQ(ChooseAdaKv(weights, {6, 2, 1, 0.5}), (std::vector<Kept>{{4, 5, 6, 7, 8, 9, 10, 11}, {8, 9, 10, 11}}));
  EXPECT_EQ(ChooseAdaKv(weights, {6, 2, 1, 1.0}), (std::vector<Kept>{{6, 7, 8, 9, 10, 11}, {6, 7, 8, 9, 10, 11}}));
  EXPECT_EQ(ChooseAdaKv(weights, {6, 2, 1, 0.0}), (std::vector<Kept>{{2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {10, 11}}));
  // A head with fewer keys than its safe share leaves the rest to the other.
  weights[1].resize(3);
  EXPECT_EQ(ChooseAdaKv(weights, {6, 2, 1, 1.0}), (std::vector<Kept>{{3, 4, 5, 6, 7, 8, 9, 10, 11}, {0, 1, 2}}));
}

TEST(H2OTest, IsThePublishedFormula) {
  for (const int n : {1, 2, 9, 10, 11, 200}) {
    for (const int budget : {2, 3, 10, 64}) {
      for (const int levels : {3, 1 << 20}) {
        const Weights sums = Random(n, 7, levels);
        const int recent = budget - budget / 2;
        Kept expected;
        if (n <= budget) {
          expected.resize(static_cast<size_t>(n));
          std::iota(expected.begin(), expected.end(), 0);
        } else {
          const std::set<int32_t> heavy = PlainTop(sums, n - recent, budget / 2);
          expected.assign(heavy.begin(), heavy.end());
          for (int t = n - recent; t < n; ++t) expected.push_back(t);
        }
        EXPECT_EQ(ChooseH2O(sums, budget), expected) << n << " " << budget;
      }
    }
  }
}

TEST(StreamingTest, KeepsSinksAndTheNewest) {
  EXPECT_EQ(ChooseStreaming(10, 6, 4), (Kept{0, 1, 2, 3, 8, 9}));
  EXPECT_EQ(ChooseStreaming(10, 6, 0), (Kept{4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(ChooseStreaming(3, 6, 4), (Kept{0, 1, 2}));
  EXPECT_EQ(ChooseStreaming(6, 6, 4).size(), 6u);
  EXPECT_EQ(ChooseStreaming(7, 6, 4), (Kept{0, 1, 2, 3, 5, 6}));
}

TEST(EvictionChoiceTest, GivesTheLayerToItsMethod) {
  const std::vector<Weights> weights = {Random(100, 1), Random(100, 2)};
  const auto choose = [&](const char* spec, int layer) {
    const Result<Policy> policy = Policy::Parse(spec);
    EXPECT_TRUE(policy.ok()) << policy.status().message();
    return ChooseKept(policy->eviction(), {layer, 3, 100, policy->eviction().window, weights});
  };
  EXPECT_EQ(choose("snapkv:budget=20,window=8,pool=3", 0)[1], ChooseSnapKv(weights[1], 20, 8, 3));
  EXPECT_EQ(choose("pyramidkv:budget=20,window=8,pool=3,beta=4", 0)[1], ChooseSnapKv(weights[1], 29, 8, 3));
  EXPECT_EQ(choose("pyramidkv:budget=20,window=8,pool=3,beta=4", 2)[1], ChooseSnapKv(weights[1], 11, 8, 3));
  EXPECT_EQ(choose("adakv:budget=20,window=8,pool=3,alpha=0.5", 0), ChooseAdaKv(weights, {20, 8, 3, 0.5}));
  EXPECT_EQ(choose("h2o:budget=20", 1)[0], ChooseH2O(weights[0], 20));
  EXPECT_EQ(choose("streaming:budget=20", 1)[0], ChooseStreaming(100, 20, 4));
}

}  // namespace
}  // namespace loopserve
