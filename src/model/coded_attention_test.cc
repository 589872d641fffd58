#include "src/model/coded_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "src/kernels/attention.h"

namespace loopserve {
namespace {

struct Shape {
  int n_heads;
  int n_kv_heads;
  int head_dim;
  int64_t n_tokens;
};

/// A dialogue of one layer with keys around a few directions, so that scores differ, but no key is too light to count.
class CodedAttentionTest : public ::testing::TestWithParam<Shape> {
 protected:
  CodedAttentionTest() {
    params_.n_layers = 1;
    params_.n_heads = GetParam().n_heads;
    params_.n_kv_heads = GetParam().n_kv_heads;
    params_.head_dim = GetParam().head_dim;
    params_.attention_scale = 1 / std::sqrt(static_cast<float>(params_.head_dim));
    params_.is_sliding_layer = {false};
    threads_ = ComputeThreads::Create(2).value();
  }

  std::unique_ptr<Dialogue> MakeDialogue(const char* spec) {
    KvLayout layout;
    layout.n_layers = 1;
    layout.n_kv_heads = params_.n_kv_heads;
    layout.head_dim = params_.head_dim;
    auto dialogue = std::make_unique<Dialogue>(KvCache(layout, nullptr), *Policy::Parse(spec),
                                               RecentQueries(1, 16, params_.q_width()));
    Store(*dialogue, GetParam().n_tokens);
    return dialogue;
  }

  /// Appends rows and queries; the same whatever is appended at once.
  void Store(Dialogue& dialogue, int64_t n) {
    ASSERT_TRUE(dialogue.cache.ReserveTokens(n).ok());
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = dialogue.cache.n_tokens();
      std::mt19937 random(static_cast<uint32_t>(position));
      std::normal_distribution<float> normal;
      std::vector<float> keys(static_cast<size_t>(params_.kv_width())), values(keys.size());
      std::vector<float> q(static_cast<size_t>(params_.q_width()));
      for (size_t d = 0; d < keys.size(); ++d) {
        keys[d] = 2 + (d % 8 == static_cast<size_t>(position / 50 % 8) ? 6.0f : 1.0f) * normal(random);
        values[d] = normal(random);
      }
      for (size_t d = 0; d < q.size(); ++d) q[d] = (d % 8 == 3 ? 0.6f : 0.2f) * normal(random);
      dialogue.cache.StoreRows(0, position, 1, keys.data(), values.data(), params_.kv_width());
      dialogue.queries.Store(0, position, 1, q.data());
      dialogue.cache.CommitTokens(1);
    }
  }

  Status Extend(Dialogue& dialogue) {
    const Result<bool> usable = dialogue.coded_keys.Extend(dialogue.cache, dialogue.queries, params_, *threads_);
    EXPECT_TRUE(!usable.ok() || *usable);
    return usable.status();
  }

  /// The step of the last token, its threads one after another.
  std::vector<float> Attend(CodedAttention& attention, Dialogue& dialogue, int n_threads) {
    const int64_t position = dialogue.cache.n_tokens() - 1;
    EXPECT_TRUE(attention.BeginStep(dialogue, position, true).ok());
    const float* q = dialogue.queries.Find(0, position);
    std::vector<KvHeadView> views;
    for (int head = 0; head < params_.n_kv_heads; ++head) views.push_back(dialogue.cache.View(0, head, position + 1));
    std::vector<float> out(static_cast<size_t>(params_.q_width()), NAN);
    for (int thread = 0; thread < n_threads; ++thread) attention.Scan(0, q, thread);
    for (int thread = 0; thread < n_threads; ++thread) attention.AttendAlways(thread);
    for (int thread = 0; thread < n_threads; ++thread) attention.Weigh(thread);
    for (int thread = 0; thread < n_threads; ++thread) attention.Pick(views.data(), thread);
    for (int thread = 0; thread < n_threads; ++thread) attention.Attend(views.data(), thread);
    for (int thread = 0; thread < n_threads; ++thread) attention.Merge(out.data(), thread);
    return out;
  }

  /// In f64: keys that were seen by their true scores, the others by those of their codes with the mean values of their
  /// groups; scores of codes have `jitter` added.
  std::vector<double> Reference(const CodedAttention& attention, const Dialogue& dialogue, double jitter) {
    const int64_t n_keys = dialogue.cache.n_tokens();
    const auto head_dim = static_cast<size_t>(params_.head_dim);
    const int group = params_.n_heads / params_.n_kv_heads;
    std::vector<double> out(static_cast<size_t>(params_.q_width()), 0.0);
    std::vector<float> key(head_dim), value(head_dim);
    for (int head = 0; head < params_.n_heads; ++head) {
      const float* q = dialogue.queries.Find(0, n_keys - 1) + int64_t{head} * params_.head_dim;
      const KvHeadView kv = dialogue.cache.View(0, head / group, n_keys);
      double sum = 0;
      std::vector<double> total(head_dim, 0.0);
      for (int64_t t = 0; t < n_keys; ++t) {
        const bool seen = attention.Seen(0, head)[t] != 0;
        if (seen) {
          LoadKvRow(kv.type, kv.Key(t), kv.head_dim, key.data());
          LoadKvRow(kv.type, kv.Value(t), kv.head_dim, value.data());
        } else {
          const CodedKeys::Run& run =
              dialogue.coded_keys.run(0, head / group, static_cast<int>(t / CodedKeys::kRunKeys));
          const int64_t in_run = t % CodedKeys::kRunKeys;
          const auto g = static_cast<size_t>(in_run / kCodeGroupKeys);
          DecodeKey(run.book, run.codes.data() + g * CodeGroupBytes(kv.head_dim),
                    static_cast<int>(in_run % kCodeGroupKeys), key.data());
          std::copy_n(run.value_means.begin() + static_cast<ptrdiff_t>(g * head_dim), head_dim, value.begin());
        }
        double score = seen ? 0 : jitter;
        for (size_t i = 0; i < head_dim; ++i) score += double{params_.attention_scale} * q[i] * key[i];
        const double weight = std::exp(score);
        sum += weight;
        for (size_t i = 0; i < head_dim; ++i) total[i] += weight * value[i];
      }
      for (size_t i = 0; i < head_dim; ++i) out[static_cast<size_t>(head) * head_dim + i] = total[i] / sum;
    }
    return out;
  }

  HyperParams params_;
  std::unique_ptr<ComputeThreads> threads_;
};

TEST_P(CodedAttentionTest, IsExactWhereItReadsAndEstimatedElsewhere) {
  for (const char* spec : {"loopserve:budget=300", "loopserve:budget=300,per_query_head=1",
                           "loopserve:budget=1,recent=1", "loopserve:budget=700,recent=500"}) {
    SCOPED_TRACE(spec);
    const std::unique_ptr<Dialogue> dialogue = MakeDialogue(spec);
    ASSERT_TRUE(Extend(*dialogue).ok());
    CodedAttention attention(params_, 1);
    const std::vector<float> out = Attend(attention, *dialogue, 1);
    // A code's score is off by at most 0.04 here (rounding of the tables); what that moves is measured by moving all.
    const std::vector<double> expected = Reference(attention, *dialogue, 0);
    const std::vector<double> above = Reference(attention, *dialogue, 0.04);
    for (size_t i = 0; i < out.size(); ++i) {
      EXPECT_NEAR(out[i], expected[i], 3 * std::abs(above[i] - expected[i]) + 0.01) << i;
    }
  }
}

TEST_P(CodedAttentionTest, ReadsItsBudgetAndAlwaysSinksAndTheNewest) {
  const int64_t n = GetParam().n_tokens;
  for (const bool per_query_head : {false, true}) {
    const std::unique_ptr<Dialogue> dialogue = MakeDialogue(
        per_query_head ? "loopserve:budget=300,recent=100,per_query_head=1" : "loopserve:budget=300,recent=100");
    ASSERT_TRUE(Extend(*dialogue).ok());
    CodedAttention attention(params_, 1);
    Attend(attention, *dialogue, 1);
    for (int head = 0; head < params_.n_heads; ++head) {
      const uint8_t* seen = attention.Seen(0, head);
      const int64_t count = std::count(seen, seen + n, uint8_t{1});
      EXPECT_LE(count, 300);
      EXPECT_GE(count, 300 - n / CodedKeys::kRunKeys - 1);  // every run rounds its share down
      for (int64_t t = 0; t < CodedKeys::kSinks; ++t) EXPECT_EQ(seen[t], 1);
      for (int64_t t = n - 100; t < n; ++t) EXPECT_EQ(seen[t], 1);
    }
    EXPECT_GE(attention.KeysRead(), 290.0 * params_.n_kv_heads);
  }
}

TEST_P(CodedAttentionTest, ABudgetOfEverythingIsDense) {
  const std::unique_ptr<Dialogue> dialogue = MakeDialogue("loopserve:budget=1000000");
  ASSERT_TRUE(Extend(*dialogue).ok());
  for (const int n_threads : {1, 2, 3}) {
    CodedAttention attention(params_, n_threads);
    const std::vector<float> out = Attend(attention, *dialogue, n_threads);
    const uint8_t* seen = attention.Seen(0, 0);
    // Keys lighter than 2^-20 are left to the estimate.
    EXPECT_GT(std::count(seen, seen + GetParam().n_tokens, uint8_t{1}), GetParam().n_tokens * 9 / 10);
    AttentionProblem problem;
    std::vector<float> expected(out.size());
    std::vector<KvHeadView> views;
    for (int head = 0; head < params_.n_kv_heads; ++head)
      views.push_back(dialogue->cache.View(0, head, GetParam().n_tokens));
    problem.q = dialogue->queries.Find(0, GetParam().n_tokens - 1);
    problem.out = expected.data();
    problem.n_rows = 1;
    problem.first_position = GetParam().n_tokens - 1;
    problem.n_heads = params_.n_heads;
    problem.n_kv_heads = params_.n_kv_heads;
    problem.head_dim = params_.head_dim;
    problem.scale = params_.attention_scale;
    problem.kv = views.data();
    AttentionReference(problem);
    for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], expected[i], 1e-3);
  }
}

TEST_P(CodedAttentionTest, ThreadsChangeTheOrderOfSumsOnly) {
  const std::unique_ptr<Dialogue> dialogue = MakeDialogue("loopserve:budget=300");
  ASSERT_TRUE(Extend(*dialogue).ok());
  CodedAttention one(params_, 1), three(params_, 3);
  const std::vector<float> a = Attend(one, *dialogue, 1);
  const std::vector<float> b = Attend(three, *dialogue, 3);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
  for (int head = 0; head < params_.n_heads; ++head) {
    EXPECT_TRUE(std::equal(one.Seen(0, head), one.Seen(0, head) + GetParam().n_tokens, three.Seen(0, head)));
  }
  EXPECT_EQ(Attend(three, *dialogue, 3), b) << "the same again";
}

TEST_P(CodedAttentionTest, CodesGrowShrinkAndGrowAgain) {
  const std::unique_ptr<Dialogue> dialogue = MakeDialogue("loopserve:budget=300");
  ASSERT_TRUE(Extend(*dialogue).ok());
  EXPECT_EQ(dialogue->coded_keys.n_keys(), GetParam().n_tokens / kCodeGroupKeys * kCodeGroupKeys);
  const std::vector<uint8_t> first = dialogue->coded_keys.run(0, 0, 0).codes;
  Store(*dialogue, 200);
  ASSERT_TRUE(Extend(*dialogue).ok());
  const int64_t grown = (GetParam().n_tokens + 200) / kCodeGroupKeys * kCodeGroupKeys;
  EXPECT_EQ(dialogue->coded_keys.n_keys(), grown);
  const std::vector<uint8_t>& longer = dialogue->coded_keys.run(0, 0, 0).codes;
  EXPECT_TRUE(std::equal(first.begin(), first.end(), longer.begin())) << "what was coded stays";
  const Dialogue fork = dialogue->Fork();
  dialogue->Truncate(GetParam().n_tokens - 70);
  EXPECT_EQ(dialogue->coded_keys.n_keys(), (GetParam().n_tokens - 70) / kCodeGroupKeys * kCodeGroupKeys);
  EXPECT_EQ(fork.coded_keys.n_keys(), grown);
  Store(*dialogue, 270);
  ASSERT_TRUE(Extend(*dialogue).ok());
  EXPECT_EQ(dialogue->coded_keys.n_keys(), grown);
  for (int r = 0; r < dialogue->coded_keys.n_runs(); ++r) {
    const CodedKeys::Run& run = dialogue->coded_keys.run(0, 0, r);
    EXPECT_EQ(run.codes.size(), static_cast<size_t>(run.n_groups) * CodeGroupBytes(params_.head_dim));
    EXPECT_EQ(run.value_means.size(), static_cast<size_t>(run.n_groups * params_.head_dim));
  }
  dialogue->Truncate(0);
  EXPECT_EQ(dialogue->coded_keys.n_keys(), 0);
  Store(*dialogue, 300);
  ASSERT_TRUE(Extend(*dialogue).ok());
  CodedAttention attention(params_, 2);
  for (const float x : Attend(attention, *dialogue, 2)) EXPECT_TRUE(std::isfinite(x));
}

TEST_P(CodedAttentionTest, KeysThatAreNotFiniteCannotBeCoded) {
  const std::unique_ptr<Dialogue> dialogue = MakeDialogue("loopserve:budget=300");
  ASSERT_TRUE(dialogue->cache.ReserveTokens(64).ok());
  const std::vector<float> bad(static_cast<size_t>(64 * params_.kv_width()), NAN);
  dialogue->cache.StoreRows(0, dialogue->cache.n_tokens(), 64, bad.data(), bad.data(), params_.kv_width());
  dialogue->cache.CommitTokens(64);
  const Result<bool> usable = dialogue->coded_keys.Extend(dialogue->cache, dialogue->queries, params_, *threads_);
  ASSERT_TRUE(usable.ok());
  EXPECT_FALSE(*usable);
  EXPECT_EQ(dialogue->coded_keys.n_keys(), 0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, CodedAttentionTest,
                         ::testing::Values(Shape{7, 1, 64, 1500}, Shape{6, 2, 64, 2300}, Shape{9, 3, 32, 1025},
                                           Shape{12, 1, 128, 1100}, Shape{2, 2, 256, 1024}),
                         [](const auto& shape) {
                           return std::to_string(shape.param.n_heads) + "on" + std::to_string(shape.param.n_kv_heads) +
                                  "x" + std::to_string(shape.param.head_dim);
                         });

}  // namespace
}  // namespace loopserve
