// The inspector's figures against a plain computation over every pair, in f64.
#include "src/model/attention_inspector.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "src/kernels/test_attention.h"
#include "src/selection/lines/line_choice.h"
#include "src/selection/row_sample.h"

namespace loopserve {
namespace {

using testing::Shape;
using testing::TestCache;

class AttentionInspectorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto threads = ComputeThreads::Create(2);
    ASSERT_TRUE(threads.ok());
    threads_ = std::move(*threads);
  }

  TurnAttention MustInspect(const TestCache& cache, const InspectOptions& options,
                            const TurnAttention* before = nullptr) {
    std::vector<float> unused;
    const AttentionProblem problem = cache.Problem(unused);
    TurnAttention turn;
    turn.first_position = problem.first_position;
    turn.n_rows = problem.n_rows;
    const Status status = InspectLayer(problem, kLayer, options, before, nullptr, *threads_, &turn);
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(std::ranges::all_of(unused, [](float x) { return x == TestCache::kUntouched; }));
    return turn;
  }

  static constexpr int kLayer = 5;
  std::unique_ptr<ComputeThreads> threads_;
};

/// Queries that attend the first key and some others more than the rest, so that there is something to choose.
TestCache PeakedCache(const Shape& shape) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  return TestCache(shape, 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
                   [&](char kind, int, int64_t token, int lane) {
                     const bool is_heavy = kind == 'k' && token % 37 == 0;
                     const float common = lane < 2 && kind != 'v' ? (kind == 'q' || is_heavy ? 4.0f : 0.0f) : 0.0f;
                     return normal(random) + common;
                   });
}

std::vector<int64_t> Sample(const Shape& shape, const InspectOptions& options, int layer, int head) {
  std::vector<int64_t> rows(static_cast<size_t>(std::min<int64_t>(options.sample_rows, shape.n_rows)));
  SampleStrata({options.seed, layer, head, 0}, 0, shape.n_rows, static_cast<int>(rows.size()), rows.data());
  return rows;
}

/// What is on the lines of one row: plain, pair by pair.
double Held(const std::vector<double>& row, const HeadAttention& head) {
  std::set<int64_t> keys;
  const auto position = static_cast<int64_t>(row.size()) - 1;
  for (const AttentionLine& line : head.columns) keys.insert(line.index);
  for (const AttentionLine& line : head.slashes) keys.insert(position - line.index);
  double held = 0;
  for (int64_t key = 0; key <= position; ++key) held += keys.contains(key) ? row[static_cast<size_t>(key)] : 0.0;
  return held;
}

TEST_F(AttentionInspectorTest, FiguresEqualAPlainComputation) {
  for (const Shape& shape : {Shape{.n_heads = 4, .n_kv_heads = 2, .head_dim = 32, .n_rows = 150, .first_position = 90},
                             Shape{.n_heads = 2, .n_kv_heads = 1, .head_dim = 16, .n_rows = 64}}) {
    SCOPED_TRACE(testing::Name(shape));
    const TestCache cache = PeakedCache(shape);
    InspectOptions options{.alpha = 0.8, .sample_rows = 40, .heldout_rows = 16, .seed = 3};
    const TurnAttention turn = MustInspect(cache, options);
    ASSERT_EQ(turn.layers.size(), 1u);
    EXPECT_EQ(turn.layers[0].layer, kLayer);
    ASSERT_EQ(turn.layers[0].heads.size(), static_cast<size_t>(shape.n_heads));
    std::vector<float> unused;
    const AttentionProblem problem = cache.Problem(unused);
    for (int h = 0; h < shape.n_heads; ++h) {
      const HeadAttention& head = turn.layers[0].heads[static_cast<size_t>(h)];
      const std::vector<int64_t> rows = Sample(shape, options, kLayer, h);
      double covered = 0, sinks = 0, near = 0, columns = 0, needed = 0, pairs = 0, first_slash = 0;
      for (const int64_t row : rows) {
        std::vector<double> weights = testing::SoftmaxReference(problem, h, row);
        covered += Held(weights, head);
        for (size_t t = 0; t < std::min<size_t>(4, weights.size()); ++t) sinks += weights[t];
        for (size_t t = 0; t < weights.size(); ++t) near += t + 64 >= weights.size() ? weights[t] : 0.0;
        for (const AttentionLine& line : head.columns) {
          if (static_cast<size_t>(line.index) < weights.size()) columns += weights[static_cast<size_t>(line.index)];
        }
        const auto key = static_cast<int64_t>(weights.size()) - 1 - (head.slashes.empty() ? 0 : head.slashes[0].index);
        if (key >= 0) first_slash += weights[static_cast<size_t>(key)];
        std::ranges::sort(weights, std::greater<>());
        double held = 0;
        for (size_t t = 0; held < options.alpha; ++t) {
          held += weights[t];
          ++needed;
        }
        pairs += static_cast<double>(weights.size());
      }
      const auto n = static_cast<double>(rows.size());
      constexpr double kTolerance = 2e-5;  // f32 weights of at most 240 keys that add up to 1
      EXPECT_NEAR(head.sampled_coverage, covered / n, kTolerance);
      EXPECT_GE(head.sampled_coverage, options.alpha - kTolerance);
      EXPECT_NEAR(head.sink_share, sinks / n, kTolerance);
      EXPECT_NEAR(head.near_share, near / n, kTolerance);
      EXPECT_NEAR(head.column_share, columns / n, kTolerance);
      EXPECT_NEAR(head.floor, needed / pairs, 2.0 * n / pairs);  // a row may tip over by a key
      if (!head.slashes.empty()) {
        EXPECT_NEAR(head.slashes[0].weight, first_slash / n, kTolerance);
      }
      double cells = 0, causal = 0;
      for (int64_t row = 0; row < shape.n_rows; ++row) {
        const std::vector<double> ones(static_cast<size_t>(shape.first_position + row + 1), 1.0);
        cells += Held(ones, head);
        causal += static_cast<double>(ones.size());
      }
      EXPECT_EQ(static_cast<double>(head.computed_pairs), cells);
      EXPECT_DOUBLE_EQ(head.density, cells / causal);
      EXPECT_LE(head.floor, head.density + 0.05);
    }
  }
}

TEST_F(AttentionInspectorTest, HeldOutRowsAreNotSampledAndJudgeBothChoices) {
  const Shape shape{.n_heads = 2, .n_kv_heads = 1, .head_dim = 32, .n_rows = 200, .first_position = 56};
  const TestCache cache = PeakedCache(shape);
  const InspectOptions options{.alpha = 0.7, .sample_rows = 50, .heldout_rows = 200};
  TurnAttention before;
  before.n_rows = shape.first_position;
  before.layers = {{kLayer, {{.columns = {{0, 0}, {37, 0}, {9999, 0}}}, {.slashes = {{0, 0}, {5, 0}}}}}};
  const TurnAttention turn = MustInspect(cache, options, &before);
  std::vector<float> unused;
  const AttentionProblem problem = cache.Problem(unused);
  for (int h = 0; h < shape.n_heads; ++h) {
    const HeadAttention& head = turn.layers[0].heads[static_cast<size_t>(h)];
    const std::vector<int64_t> sampled = Sample(shape, options, kLayer, h);
    double covered = 0, covered_before = 0;
    int n = 0;
    for (int64_t row = 0; row < shape.n_rows; ++row) {  // as many strata as rows: all that were not sampled
      if (std::ranges::binary_search(sampled, row)) continue;
      const std::vector<double> weights = testing::SoftmaxReference(problem, h, row);
      covered += Held(weights, head);
      covered_before += Held(weights, before.layers[0].heads[static_cast<size_t>(h)]);
      ++n;
    }
    ASSERT_TRUE(head.heldout_coverage && head.coverage_by_last_lines);
    EXPECT_NEAR(*head.heldout_coverage, covered / n, 2e-5);
    EXPECT_NEAR(*head.coverage_by_last_lines, covered_before / n, 2e-5);
  }
  InspectOptions next_seed = options;
  ++next_seed.seed;
  const TurnAttention again = MustInspect(cache, next_seed);
  for (size_t h = 0; h < 2; ++h) {
    const HeadAttention& head = turn.layers[0].heads[h];
    const HeadAttention& other = again.layers[0].heads[h];
    ASSERT_TRUE(head.column_resampled && head.slash_resampled);
    EXPECT_EQ(head.column_resampled->both, OverlapOfLines(head.columns, other.columns, shape.first_position).both);
    EXPECT_EQ(head.column_resampled->possible, shape.first_position);
    EXPECT_EQ(head.slash_resampled->now, OverlapOfLines({}, other.slashes, shape.first_position).now);
    EXPECT_GT(head.column_resampled->both, 0);
    EXPECT_EQ(other.column_resampled, std::nullopt);
  }
  const TurnAttention all_sampled = MustInspect(cache, {.sample_rows = 4096});
  EXPECT_EQ(all_sampled.layers[0].heads[0].heldout_coverage, std::nullopt);
  EXPECT_EQ(all_sampled.layers[0].heads[0].coverage_by_last_lines, std::nullopt);
}

TEST_F(AttentionInspectorTest, TheMapPoolsEveryRow) {
  const Shape shape{.n_heads = 2, .n_kv_heads = 1, .head_dim = 16, .n_rows = 101, .first_position = 30};
  const TestCache cache = PeakedCache(shape);
  for (const int cells : {7, 64, 512}) {
    SCOPED_TRACE(cells);
    const TurnAttention turn = MustInspect(cache, {.alpha = 0.7, .layer = kLayer, .map_head = 1, .map_cells = cells});
    ASSERT_TRUE(turn.map.has_value());
    const AttentionMap& map = *turn.map;
    EXPECT_EQ(map.map_rows, std::min(cells, 101));
    EXPECT_EQ(map.map_columns, std::min(cells, 131));
    std::vector<float> unused;
    const AttentionProblem problem = cache.Problem(unused);
    const HeadAttention& head = turn.layers[0].heads[1];
    double computed_pairs = 0;
    for (int i = 0; i < map.map_rows; ++i) {
      std::vector<double> mean(static_cast<size_t>(map.map_columns));
      std::vector<double> computed(mean.size()), causal(mean.size());
      for (int64_t row = map.RowEdge(i); row < map.RowEdge(i + 1); ++row) {
        const std::vector<double> weights = testing::SoftmaxReference(problem, 1, row);
        for (int64_t key = 0; key < static_cast<int64_t>(weights.size()); ++key) {
          size_t c = 0;
          while (map.KeyEdge(static_cast<int>(c) + 1) <= key) ++c;
          mean[c] += weights[static_cast<size_t>(key)] / static_cast<double>(map.RowEdge(i + 1) - map.RowEdge(i));
          std::vector<double> one(weights.size());
          one[static_cast<size_t>(key)] = 1;
          computed[c] += Held(one, head);
          causal[c] += 1;
        }
      }
      for (size_t c = 0; c < mean.size(); ++c) {
        const size_t cell = static_cast<size_t>(i) * mean.size() + c;
        EXPECT_NEAR(map.weight[cell], mean[c], 1e-5);
        EXPECT_NEAR(map.computed[cell], causal[c] > 0 ? computed[c] / causal[c] : 0.0, 1e-6);
        computed_pairs += computed[c];
      }
    }
    EXPECT_EQ(computed_pairs, static_cast<double>(head.computed_pairs));
  }
}

TEST_F(AttentionInspectorTest, ScoresThatAreNotFiniteCountAsNoWeight) {
  const Shape shape{.head_dim = 16, .n_rows = 70};
  const TestCache cache(shape, 1.0f, [](char kind, int, int64_t, int) {
    return kind == 'q' ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
  });
  const TurnAttention turn = MustInspect(cache, {.layer = kLayer, .map_head = 0});
  const HeadAttention& head = turn.layers[0].heads[0];
  EXPECT_EQ(head.sampled_coverage, 0.0);
  EXPECT_EQ(head.density, 0.0);
  EXPECT_EQ(head.floor, 0.0);
  EXPECT_EQ(head.sink_share, 0.0);
  EXPECT_TRUE(std::ranges::all_of(turn.map->weight, [](float x) { return x == 0; }));
}

TEST_F(AttentionInspectorTest, ACancelFlagEndsIt) {
  const Shape shape{.head_dim = 16, .n_rows = 70};
  const TestCache cache = PeakedCache(shape);
  std::vector<float> unused;
  const std::atomic<bool> cancel{true};
  TurnAttention turn;
  EXPECT_EQ(InspectLayer(cache.Problem(unused), 0, {}, nullptr, &cancel, *threads_, &turn).code(),
            StatusCode::kCancelled);
  EXPECT_TRUE(turn.layers.empty());
}

}  // namespace
}  // namespace loopserve
