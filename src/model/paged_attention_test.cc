#include "src/model/paged_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "src/kernels/attention.h"

namespace loopserve {
namespace {

struct Shape {
  int n_heads;
  int n_kv_heads;
  int head_dim;
  KvType type = KvType::kF16;
};

/// A dialogue of two layers, the first of which has a sliding window.
class PagedAttentionTest : public ::testing::TestWithParam<Shape> {
 protected:
  PagedAttentionTest() {
    params_.n_layers = 2;
    params_.n_heads = GetParam().n_heads;
    params_.n_kv_heads = GetParam().n_kv_heads;
    params_.head_dim = GetParam().head_dim;
    params_.attention_scale = 1 / std::sqrt(static_cast<float>(params_.head_dim));
    params_.sliding_window = 8;
    params_.is_sliding_layer = {true, false};
    threads_ = ComputeThreads::Create(2).value();
  }

  std::unique_ptr<Dialogue> MakeDialogue(const std::string& spec, int64_t n_tokens) {
    KvLayout layout;
    layout.n_layers = params_.n_layers;
    layout.n_kv_heads = params_.n_kv_heads;
    layout.head_dim = params_.head_dim;
    layout.type = GetParam().type;
    auto dialogue =
        std::make_unique<Dialogue>(KvCache(layout, nullptr), *Policy::Parse(spec), RecentQueries(2, 1, Width()));
    Store(*dialogue, n_tokens);
    return dialogue;
  }
  int64_t Width() const { return params_.q_width(); }

  /// Appends rows and queries; the same whatever is appended at once.
  void Store(Dialogue& dialogue, int64_t n, bool all_alike = false) {
    ASSERT_TRUE(dialogue.cache.ReserveTokens(n).ok());
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = dialogue.cache.n_tokens();
      std::mt19937 random(static_cast<uint32_t>(position));
      std::normal_distribution<float> normal;
      std::vector<float> keys(static_cast<size_t>(params_.kv_width())), values(keys.size());
      std::vector<float> q(static_cast<size_t>(Width()));
      for (float& key : keys) key = all_alike ? 0.5f : normal(random);
      for (float& value : values) value = normal(random);
      for (float& x : q) x = normal(random);
      for (int layer = 0; layer < params_.n_layers; ++layer) {
        dialogue.cache.StoreRows(layer, position, 1, keys.data(), values.data(), params_.kv_width());
        dialogue.queries.Store(layer, position, 1, q.data());
      }
      dialogue.cache.CommitTokens(1);
    }
  }

  void Extend(Dialogue& dialogue) {
    EXPECT_TRUE(dialogue.key_pages.Extend(dialogue.cache, params_, 0, *threads_).ok());
  }

  /// The step of the last token in the second layer, its threads one after another.
  std::vector<float> Attend(PagedAttention& attention, Dialogue& dialogue, int n_threads) {
    const int64_t position = dialogue.cache.n_tokens() - 1;
    EXPECT_TRUE(attention.BeginStep(dialogue, position, true).ok());
    EXPECT_TRUE(attention.Chooses(1));
    const float* q = dialogue.queries.Find(1, position);
    std::vector<KvHeadView> views;
    for (int head = 0; head < params_.n_kv_heads; ++head) views.push_back(dialogue.cache.View(1, head, position + 1));
    std::vector<float> out(static_cast<size_t>(Width()), NAN);
    for (int thread = 0; thread < n_threads; ++thread) attention.Scan(1, q, thread);
    for (int thread = 0; thread < n_threads; ++thread) attention.Weigh(thread);
    for (int thread = 0; thread < n_threads; ++thread) attention.Attend(views.data(), thread);
    for (int thread = 0; thread < n_threads; ++thread) attention.Merge(out.data(), thread);
    return out;
  }

  std::vector<std::vector<float>> Keys(const KvHeadView& kv) const {
    std::vector<std::vector<float>> keys(static_cast<size_t>(kv.n_keys));
    for (int64_t t = 0; t < kv.n_keys; ++t) {
      keys[static_cast<size_t>(t)].resize(static_cast<size_t>(kv.head_dim));
      LoadKvRow(kv.type, kv.Key(t), kv.head_dim, keys[static_cast<size_t>(t)].data());
    }
    return keys;
  }

  /// Quest's bound of a page for one query, as published, in f64.
  double Bound(const std::vector<std::vector<float>>& keys, const float* q, int64_t page) const {
    double bound = 0;
    for (size_t i = 0; i < keys[0].size(); ++i) {
      float low = FLT_MAX, high = -FLT_MAX;
      for (auto t = static_cast<size_t>(page * 16); t < static_cast<size_t>(page * 16 + 16); ++t) {
        low = std::min(low, keys[t][i]);
        high = std::max(high, keys[t][i]);
      }
      bound += std::max(double{q[i]} * low, double{q[i]} * high);
    }
    return bound * params_.attention_scale;
  }

  /// What a unit of heads ranks the pages before the newest by.
  std::vector<double> Ranks(const Dialogue& dialogue, int first_head, int n_heads) const {
    const int64_t n_keys = dialogue.cache.n_tokens();
    const auto keys = Keys(dialogue.cache.View(1, first_head / (params_.n_heads / params_.n_kv_heads), n_keys));
    std::vector<double> ranks(static_cast<size_t>((n_keys - 1) / 16), -INFINITY);
    for (int head = first_head; head < first_head + n_heads; ++head) {
      const float* q = dialogue.queries.Find(1, n_keys - 1) + int64_t{head} * params_.head_dim;
      std::vector<double> bounds;
      for (size_t page = 0; page < ranks.size(); ++page) bounds.push_back(Bound(keys, q, static_cast<int64_t>(page)));
      const double largest = std::ranges::max(bounds);
      for (size_t page = 0; page < ranks.size(); ++page) ranks[page] = std::max(ranks[page], bounds[page] - largest);
    }
    return ranks;
  }

  /// Exact attention of one head over the keys that are marked, in f64.
  std::vector<double> Reference(const Dialogue& dialogue, int head, const uint8_t* seen) const {
    const int64_t n_keys = dialogue.cache.n_tokens();
    const KvHeadView kv = dialogue.cache.View(1, head / (params_.n_heads / params_.n_kv_heads), n_keys);
    const auto keys = Keys(kv);
    const float* q = dialogue.queries.Find(1, n_keys - 1) + int64_t{head} * params_.head_dim;
    std::vector<double> total(keys[0].size(), 0.0);
    std::vector<float> value(total.size());
    double sum = 0;
    for (int64_t t = 0; t < n_keys; ++t) {
      if (seen[t] == 0) continue;
      double score = 0;
      for (size_t i = 0; i < total.size(); ++i) score += double{q[i]} * keys[static_cast<size_t>(t)][i];
      const double weight = std::exp(score * params_.attention_scale);
      LoadKvRow(kv.type, kv.Value(t), kv.head_dim, value.data());
      sum += weight;
      for (size_t i = 0; i < total.size(); ++i) total[i] += weight * value[i];
    }
    for (double& x : total) x /= sum;
    return total;
  }

  /// Whether `seen` is what the published rule reads, position by position; ranks that differ by the rounding of f32
  /// bounds (and of f16 ones, of q8_0 keys) count as equal.
  void ExpectPublishedChoice(const std::vector<double>& ranks, int64_t n_keys, int64_t n_wanted, const uint8_t* seen) {
    const double rounding = GetParam().type == KvType::kF16 ? 1e-4 : 0.02;
    double least_read = INFINITY, most_left = -INFINITY;
    int64_t n_read = 0;
    for (size_t page = 0; page < ranks.size(); ++page) {
      const uint8_t* of_page = seen + page * 16;
      for (int i = 0; i < 16; ++i) EXPECT_EQ(of_page[i], of_page[0]) << "a part of page " << page;
      n_read += of_page[0];
      double& limit = of_page[0] != 0 ? least_read : most_left;
      limit = of_page[0] != 0 ? std::min(limit, ranks[page]) : std::max(limit, ranks[page]);
    }
    EXPECT_EQ(n_read, n_wanted);
    EXPECT_GE(least_read, most_left - rounding);
    for (auto t = static_cast<int64_t>(ranks.size()) * 16; t < n_keys; ++t) EXPECT_EQ(seen[t], 1) << "newest page";
  }

  HyperParams params_;
  std::unique_ptr<ComputeThreads> threads_;
};

TEST_P(PagedAttentionTest, ReadsWhatThePublishedRuleReads) {
  const struct {
    const char* budget;
    int64_t pages;
  } kBudgets[] = {{"1", 3}, {"47", 3}, {"64", 4}, {"100", 6}, {"256", 16}};
  for (const auto& budget : kBudgets) {
    for (const bool per_query_head : {false, true}) {
      const std::string spec =
          std::string("quest:dense_layers=1,budget=") + budget.budget + (per_query_head ? ",per_query_head=1" : "");
      SCOPED_TRACE(spec);
      // Around the boundaries of a page, and the first context that is longer than the budget.
      for (const int64_t n :
           {budget.pages * 16 + 1, budget.pages * 16 + 16, int64_t{303}, int64_t{304}, int64_t{305}}) {
        SCOPED_TRACE(n);
        const std::unique_ptr<Dialogue> dialogue = MakeDialogue(spec, n);
        Extend(*dialogue);
        const int n_threads = static_cast<int>(1 + n % 3);
        PagedAttention attention(params_, n_threads);
        const std::vector<float> out = Attend(attention, *dialogue, n_threads);
        const int unit_heads = per_query_head ? 1 : params_.n_heads / params_.n_kv_heads;
        double n_read = 0;
        for (int head = 0; head < params_.n_heads; ++head) {
          const uint8_t* seen = attention.Seen(1, head);
          ExpectPublishedChoice(Ranks(*dialogue, head / unit_heads * unit_heads, unit_heads), n, budget.pages - 1,
                                seen);
          const std::vector<double> expected = Reference(*dialogue, head, seen);
          // Scores of head_dim products, weights of n keys: f32 rounding stays below 1e-4 of values around 1.
          for (int i = 0; i < params_.head_dim; ++i) {
            EXPECT_NEAR(out[static_cast<size_t>(head * params_.head_dim + i)], expected[static_cast<size_t>(i)], 1e-4);
          }
          n_read += static_cast<double>(std::count(seen, seen + n, uint8_t{1})) / unit_heads;
        }
        // Bounds are f16 pairs of head_dim for each page before the newest, against keys and values as stored.
        const double bounds = static_cast<double>((n - 1) / 16 * params_.n_kv_heads * params_.head_dim * 4) /
                              (2.0 * static_cast<double>(KvRowBytes(GetParam().type, params_.head_dim)));
        EXPECT_NEAR(attention.KeysRead(), n_read + bounds, 1e-6);
      }
    }
  }
}

TEST_P(PagedAttentionTest, ContextsUpToTheBudgetAndTheFirstLayersAreReadInFull) {
  for (const int64_t n : {1, 16, 64}) {
    const std::unique_ptr<Dialogue> dialogue = MakeDialogue("quest:dense_layers=1,budget=64", n);
    Extend(*dialogue);
    PagedAttention attention(params_, 1);
    ASSERT_TRUE(attention.BeginStep(*dialogue, n - 1, true).ok());
    EXPECT_FALSE(attention.Chooses(1)) << n;
  }
  const std::unique_ptr<Dialogue> dialogue = MakeDialogue("quest:dense_layers=1,budget=64", 65);
  Extend(*dialogue);
  PagedAttention attention(params_, 1);
  ASSERT_TRUE(attention.BeginStep(*dialogue, 64, true).ok());
  EXPECT_FALSE(attention.Chooses(0));
  EXPECT_TRUE(attention.Chooses(1));
}

TEST_P(PagedAttentionTest, AmongEqualsTheLaterPages) {
  const std::unique_ptr<Dialogue> dialogue = MakeDialogue("quest:dense_layers=1,budget=64", 0);
  Store(*dialogue, 200, true);
  Extend(*dialogue);
  PagedAttention attention(params_, 2);
  Attend(attention, *dialogue, 2);
  for (int head = 0; head < params_.n_heads; ++head) {
    for (int64_t t = 0; t < 200; ++t) EXPECT_EQ(attention.Seen(1, head)[t], t >= 144) << t;  // 9, 10, 11 and the newest
  }
}

TEST_P(PagedAttentionTest, ThreadsChangeTheOrderOfSumsOnly) {
  const std::unique_ptr<Dialogue> dialogue =
      MakeDialogue("quest:dense_layers=1,budget=160", 2500);  // several pieces of pages
  Extend(*dialogue);
  PagedAttention one(params_, 1), three(params_, 3);
  const std::vector<float> a = Attend(one, *dialogue, 1);
  const std::vector<float> b = Attend(three, *dialogue, 3);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
  for (int head = 0; head < params_.n_heads; ++head) {
    EXPECT_TRUE(std::equal(one.Seen(1, head), one.Seen(1, head) + 2500, three.Seen(1, head)));
  }
  EXPECT_EQ(Attend(three, *dialogue, 3), b) << "the same again";
}

TEST_P(PagedAttentionTest, BoundsGrowShrinkAndGrowAgain) {
  const std::unique_ptr<Dialogue> dialogue = MakeDialogue("quest", 100);
  Extend(*dialogue);
  EXPECT_EQ(dialogue->key_pages.n_pages(), 6);
  Store(*dialogue, 60);
  Dialogue fork = dialogue->Fork();
  Extend(*dialogue);
  EXPECT_EQ(dialogue->key_pages.n_pages(), 10);
  EXPECT_EQ(fork.key_pages.n_pages(), 0) << "a fork makes its own";
  dialogue->Truncate(95);
  EXPECT_EQ(dialogue->key_pages.n_pages(), 5);
  Store(*dialogue, 1, true);  // another sixth page than before
  Store(*dialogue, 64);
  Extend(*dialogue);
  Extend(fork);
  const auto expect_fresh = [&](const Dialogue& grown) {
    const KvCache& cache = grown.cache;
    ASSERT_EQ(grown.key_pages.n_pages(), cache.n_tokens() / kPageKeys);
    std::vector<std::byte> fresh(PageBoundsBytes(params_.head_dim));
    for (int head = 0; head < params_.n_kv_heads; ++head) {
      for (int64_t page = 0; page < grown.key_pages.n_pages(); ++page) {
        StorePageBounds(cache.View(1, head, cache.n_tokens()), page, fresh.data());
        EXPECT_TRUE(std::equal(fresh.begin(), fresh.end(),
                               grown.key_pages.bounds(1, head) + static_cast<size_t>(page) * fresh.size()));
      }
    }
  };
  expect_fresh(*dialogue);
  expect_fresh(fork);
}

// Keys that are not finite are read, as in dense decoding: they do not hide.
TEST_P(PagedAttentionTest, NanIsRead) {
  if (GetParam().type != KvType::kF16) GTEST_SKIP() << "q8_0 has no NaN";
  const std::unique_ptr<Dialogue> dialogue = MakeDialogue("quest:dense_layers=1,budget=64", 100);
  ASSERT_TRUE(dialogue->cache.ReserveTokens(1).ok());
  const std::vector<float> bad(static_cast<size_t>(params_.kv_width()), NAN);
  dialogue->cache.StoreRows(1, 100, 1, bad.data(), bad.data(), params_.kv_width());
  dialogue->cache.StoreRows(0, 100, 1, bad.data(), bad.data(), params_.kv_width());
  dialogue->cache.CommitTokens(1);
  Store(*dialogue, 60);
  Extend(*dialogue);
  PagedAttention attention(params_, 1);
  const std::vector<float> out = Attend(attention, *dialogue, 1);
  for (int head = 0; head < params_.n_heads; ++head) EXPECT_EQ(attention.Seen(1, head)[100], 1);
  EXPECT_TRUE(std::isnan(out[0]));
}

INSTANTIATE_TEST_SUITE_P(Shapes, PagedAttentionTest,
                         ::testing::Values(Shape{7, 1, 64}, Shape{6, 2, 32}, Shape{3, 3, 80}, Shape{2, 1, 256},
                                           Shape{4, 2, 64, KvType::kQ8_0}),
                         [](const auto& shape) {
                           return std::to_string(shape.param.n_heads) + "on" + std::to_string(shape.param.n_kv_heads) +
                                  "x" + std::to_string(shape.param.head_dim) +
                                  (shape.param.type == KvType::kF16 ? "" : "q8");
                         });

}  // namespace
}  // namespace loopserve
