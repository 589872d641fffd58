#include "src/selection/flexprefill/flex_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

namespace loopserve {
namespace {

using Matrix = std::vector<std::vector<double>>;

Matrix Softmax(Matrix scores) {
  for (auto& row : scores) {
    const double max = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (double& x : row) sum += x = std::exp(x - max);
    for (double& x : row) x /= sum;
  }
  return scores;
}

/// A turn of one head with random queries and keys, what ChooseFlexBlocks gets of it, and the published definition
/// written out over whole matrices.
class Turn {
 public:
  /// noise: 0 makes all keys of a block, and all queries, the same: then the means say all.
  Turn(int64_t first_position, int64_t n_keys, double noise, uint32_t seed = 1)
      : first_position_(first_position), n_keys_(n_keys), n_blocks_((n_keys + 127) / 128) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    std::vector<double> block_key(kDim);
    const auto vector = [&](double size) {
      std::vector<double> x(kDim);
      for (double& v : x) v = size * normal(random);
      return x;
    };
    const std::vector<double> query = vector(1);
    for (int64_t t = 0; t < n_keys; ++t) {
      if (t % 128 == 0) block_key = vector(1.5);
      keys_.push_back(Sum(block_key, vector(noise)));
      if (t >= first_position) queries_.push_back(Sum(query, vector(noise)));
    }
    n_last_ = std::min<int64_t>(128, n_keys - first_position);
    MakeProblem();
  }

  const FlexProblem& problem() const { return problem_; }

  FlexChoice Plain(const FlexSettings& settings) const {
    const Matrix qk = LastWeights();
    std::vector<double> vertical(static_cast<size_t>(n_keys_)), slash(static_cast<size_t>(n_keys_));
    for (int64_t i = 0; i < n_last_; ++i) {
      for (int64_t t = 0; t <= n_keys_ - n_last_ + i; ++t) {
        const double mean = qk[static_cast<size_t>(i)][static_cast<size_t>(t)] / static_cast<double>(n_last_);
        vertical[static_cast<size_t>(t)] += mean;
        slash[static_cast<size_t>(t + n_last_ - 1 - i)] += mean;  // the nearest slash is the last
      }
    }
    const int64_t least = (settings.min_budget + 127) / 128;
    int64_t n_vertical = std::min(std::max(CoverTopK(vertical, settings.gamma) / 128 + 1, least), n_blocks_);
    int64_t n_slash = std::min(std::max(CoverTopK(slash, settings.gamma) / 128 + 1, least), n_blocks_);
    std::vector<double> vertical_blocks = Pool(vertical), slash_blocks = Pool(slash);
    FlexChoice choice;
    choice.is_query_aware =
        Distance(MeanRow(MeanOf(queries_, n_keys_ - first_position_ - n_last_, n_keys_ - first_position_), n_blocks_),
                 vertical_blocks) < settings.tau;
    if (choice.is_query_aware) n_vertical = n_slash = std::min(least, n_blocks_);
    vertical_blocks.front() = INFINITY;
    slash_blocks.back() = INFINITY;
    std::ranges::reverse(slash_blocks);
    std::vector<std::set<int32_t>> sets;
    for (int64_t row = first_position_ / 128; row < n_blocks_; ++row) {
      std::set<int32_t>& set = sets.emplace_back();
      for (const int64_t key : TopK(vertical_blocks, n_vertical)) {
        if (key <= row) set.insert(static_cast<int32_t>(key));
      }
      for (const int64_t offset : TopK(slash_blocks, n_slash)) {
        if (offset <= row) set.insert(static_cast<int32_t>(row - offset));
      }
    }
    if (choice.is_query_aware) AddMeans(settings.gamma, &sets);
    for (const auto& set : sets) choice.blocks.emplace_back(set.begin(), set.end());
    return choice;
  }

 private:
  static constexpr int kDim = 8;
  static constexpr double kScale = 0.35;

  static std::vector<double> Sum(std::vector<double> a, const std::vector<double>& b) {
    for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
  }
  static double Dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum * kScale;
  }
  static std::vector<double> MeanOf(const Matrix& rows, int64_t first, int64_t last) {
    std::vector<double> mean(kDim);
    for (int64_t r = std::max<int64_t>(0, first); r < last; ++r) mean = Sum(mean, rows[static_cast<size_t>(r)]);
    for (double& x : mean) x /= static_cast<double>(last - std::max<int64_t>(0, first));
    return mean;
  }
  static int64_t CoverTopK(std::vector<double> x, double gamma) {
    std::sort(x.begin(), x.end(), std::greater());
    double sum = 0;
    int64_t count = 1;
    for (const double value : x) count += (sum += value) <= gamma ? 1 : 0;
    return count;
  }
  static std::vector<double> Pool(const std::vector<double>& x) {
    std::vector<double> pooled((x.size() + 127) / 128);
    for (size_t i = 0; i < x.size(); ++i) pooled[i / 128] += x[i];
    return pooled;
  }
  static std::vector<int64_t> TopK(const std::vector<double>& x, int64_t k) {
    std::vector<int64_t> order;
    for (size_t i = 0; i < x.size(); ++i) order.push_back(static_cast<int64_t>(i));
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return x[static_cast<size_t>(a)] > x[static_cast<size_t>(b)]; });
    order.resize(static_cast<size_t>(k));
    return order;
  }
  static double Distance(const std::vector<double>& p, const std::vector<double>& q) {
    double sum = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      const double m = (p[i] + q[i]) / 2;
      sum += 0.5 * p[i] * std::log(p[i] / m) + 0.5 * q[i] * std::log(q[i] / m);
    }
    return std::sqrt(sum);
  }

  Matrix LastWeights() const {
    Matrix scores;
    for (int64_t i = n_keys_ - n_last_; i < n_keys_; ++i) {
      auto& row = scores.emplace_back();
      for (int64_t t = 0; t < n_keys_; ++t) {
        row.push_back(t <= i ? Dot(queries_[static_cast<size_t>(i - first_position_)], keys_[static_cast<size_t>(t)])
                             : -INFINITY);
      }
    }
    return Softmax(scores);
  }
  std::vector<double> MeanRow(const std::vector<double>& query, int64_t n) const {
    std::vector<double> row;
    for (int64_t b = 0; b < n_blocks_; ++b) {
      row.push_back(b < n ? Dot(query, MeanOf(keys_, b * 128, std::min(n_keys_, b * 128 + 128))) : -INFINITY);
    }
    return Softmax({row}).front();
  }
  void AddMeans(double gamma, std::vector<std::set<int32_t>>* sets) const {
    std::vector<double> flat;
    for (int64_t row = first_position_ / 128; row < n_blocks_; ++row) {
      const int64_t first = row * 128 - first_position_;
      const auto weights = MeanRow(MeanOf(queries_, first, std::min(first + 128, n_keys_ - first_position_)), row + 1);
      flat.insert(flat.end(), weights.begin(), weights.end());
    }
    double sum = 0;
    for (const int64_t i : TopK(flat, static_cast<int64_t>(flat.size()))) {
      sum += flat[static_cast<size_t>(i)];
      if (sum > gamma * static_cast<double>(sets->size())) break;
      if (flat[static_cast<size_t>(i)] > 0) {
        (*sets)[static_cast<size_t>(i / n_blocks_)].insert(static_cast<int32_t>(i % n_blocks_));
      }
    }
  }

  void MakeProblem() {
    const auto append = [](const std::vector<double>& from, std::vector<float>* to) {
      for (const double x : from) to->push_back(static_cast<float>(x));
    };
    const int64_t n_rows = n_keys_ - first_position_;
    for (const auto& row : LastWeights()) append(row, &weights_);
    for (int64_t i = n_keys_ - n_last_; i < n_keys_; ++i) positions_.push_back(i);
    append(MeanOf(queries_, n_rows - n_last_, n_rows), &mean_last_query_);
    for (int64_t b = 0; b < n_blocks_; ++b) {
      append(MeanOf(keys_, b * 128, std::min(n_keys_, b * 128 + 128)), &mean_keys_);
      const int64_t first = b * 128 - first_position_;
      if (b >= first_position_ / 128) append(MeanOf(queries_, first, std::min(n_rows, first + 128)), &mean_queries_);
    }
    problem_ = {first_position_,
                n_keys_,
                {positions_, weights_.data(), n_keys_},
                kDim,
                static_cast<float>(kScale),
                mean_last_query_,
                mean_queries_,
                mean_keys_};
  }

  int64_t first_position_, n_keys_, n_blocks_;
  int64_t n_last_ = 0;
  Matrix queries_, keys_;
  std::vector<int64_t> positions_;
  std::vector<float> weights_, mean_last_query_, mean_queries_, mean_keys_;
  FlexProblem problem_;
};

TEST(FlexChoiceTest, IsThePublishedDefinition) {
  const struct {
    const char* name;
    int64_t first_position, n_keys;
    double noise;
    FlexSettings settings;
    bool is_query_aware;
  } kCases[] = {
      {"vertical and slash", 0, 1280, 1.5, {0.9, 0.1, 128}, false},
      {"no whole number of blocks", 0, 1201, 1.5, {0.9, 0.1, 128}, false},
      {"a turn on a history", 700, 1201, 1.5, {0.9, 0.1, 128}, false},
      {"fewer rows than decide", 1150, 1201, 1.5, {0.9, 0.1, 128}, false},
      {"means", 0, 1280, 0.05, {0.9, 0.1, 128}, true},
      {"means, no whole number of blocks", 0, 1201, 0.05, {0.9, 0.5, 128}, true},
      {"means, on a history", 300, 1280, 0.05, {0.7, 0.1, 256}, true},
      {"means that are never trusted", 0, 1280, 0.05, {0.9, 0, 128}, false},
      {"little gamma", 0, 1280, 1.5, {0.3, 0.1, 128}, false},
      {"a least number", 0, 1280, 1.5, {0.3, 0.1, 600}, false},
      {"a least number beyond all", 0, 640, 1.5, {0.3, 0.1, 6000}, false},
      {"one block", 0, 100, 1.5, {0.9, 0, 128}, false},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    const Turn turn(c.first_position, c.n_keys, c.noise);
    const FlexChoice expected = turn.Plain(c.settings);
    const FlexChoice actual = ChooseFlexBlocks(turn.problem(), c.settings);
    EXPECT_EQ(expected.is_query_aware, c.is_query_aware) << "the case is not what its name says";
    EXPECT_EQ(actual.is_query_aware, expected.is_query_aware);
    EXPECT_EQ(actual.blocks, expected.blocks);
  }
}

TEST(FlexChoiceTest, TheFirstAndTheOwnBlockAreAlwaysThere) {
  const Turn turn(400, 1500, 1.0);
  const FlexChoice choice = ChooseFlexBlocks(turn.problem(), {0.01, 0, 1});
  ASSERT_EQ(choice.blocks.size(), 9u);
  for (size_t i = 0; i < choice.blocks.size(); ++i) {
    EXPECT_EQ(choice.blocks[i].front(), 0);
    EXPECT_EQ(choice.blocks[i].back(), static_cast<int32_t>(i) + 3);
  }
}

TEST(FlexChoiceTest, EqualBlocksGoByTheirIndex) {
  // All keys the same: columns weigh alike but for the causal end, so the earliest blocks come first.
  const int64_t n = 1024;
  std::vector<float> weights(static_cast<size_t>(n), 1.0f / 1024);
  const std::vector<int64_t> positions = {n - 1};
  const std::vector<float> zero(8), zeros(64);
  const FlexProblem problem = {0, n, {positions, weights.data(), n}, 8, 1, zero, zeros, zeros};
  const FlexChoice choice = ChooseFlexBlocks(problem, {0.25, 0, 1});
  EXPECT_EQ(choice.blocks.back(), (std::vector<int32_t>{0, 1, 2, 5, 6, 7}));
}

TEST(FlexChoiceTest, DenseUpToTwoBlocksOrTheBudget) {
  EXPECT_EQ(FlexDenseKeys(1), 256);
  EXPECT_EQ(FlexDenseKeys(1000), 1024);
}

}  // namespace
}  // namespace loopserve
