#include "src/selection/lines/line_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>

namespace loopserve {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A problem that owns its sample. What lies beyond a row's position is heavy, so that reading it shows.
class Sample {
 public:
  Sample(int64_t first_position, int64_t n_keys, std::vector<int64_t> positions, int64_t padding = 3)
      : first_position_(first_position),
        n_keys_(n_keys),
        stride_(n_keys + padding),
        positions_(std::move(positions)),
        weights_(positions_.size() * stride_, 1.0f) {}

  size_t n_rows() const { return positions_.size(); }
  std::span<float> Row(size_t row) { return std::span(weights_).subspan(row * stride_, positions_[row] + 1); }
  void SetRow(size_t row, std::initializer_list<float> weights) {
    ASSERT_EQ(weights.size(), Row(row).size());
    std::ranges::copy(weights, Row(row).begin());
  }
  LineProblem problem() const { return {first_position_, n_keys_, {positions_, weights_.data(), stride_}}; }

 private:
  int64_t first_position_, n_keys_, stride_;
  std::vector<int64_t> positions_;
  std::vector<float> weights_;
};

// What the lines of a choice cover, cell by cell.
struct Covered {
  double coverage;
  int64_t cells;
  bool has_weight;
};

Covered CountCovered(const LineProblem& problem, const LineChoice& choice) {
  std::vector<std::vector<bool>> is_covered(problem.n_keys, std::vector<bool>(problem.n_keys));
  for (int64_t p = problem.first_position; p < problem.n_keys; ++p) {
    for (const int32_t column : choice.columns) {
      if (column <= p) is_covered[p][column] = true;
    }
    for (const int32_t slash : choice.slashes) {
      if (slash <= p) is_covered[p][p - slash] = true;
    }
  }
  Covered covered = {};
  for (const std::vector<bool>& row : is_covered) covered.cells += std::ranges::count(row, true);
  double total = 0.0;
  for (size_t row = 0; row < problem.rows.positions.size(); ++row) {
    const int64_t p = problem.rows.positions[row];
    for (int64_t key = 0; key <= p; ++key) {
      const float weight = problem.rows.weights[row * problem.rows.stride + key];
      if (std::isnan(weight) || weight < 0.0f) continue;
      total += weight;
      if (is_covered[p][key]) covered.coverage += weight;
    }
  }
  covered.has_weight = total > 0.0;
  covered.coverage = covered.has_weight ? covered.coverage / total : 0.0;
  return covered;
}

void ExpectConsistent(const LineProblem& problem, double alpha, const LineChoice& choice) {
  for (const auto* lines : {&choice.columns, &choice.slashes}) {
    EXPECT_EQ(std::ranges::adjacent_find(*lines, std::ranges::greater_equal()), lines->end()) << "not ascending";
  }
  const Covered covered = CountCovered(problem, choice);
  EXPECT_EQ(choice.cells, covered.cells);
  EXPECT_NEAR(choice.sampled_coverage, covered.coverage, 1e-8);  // weights count in steps of 2^-40
  if (covered.has_weight) {
    EXPECT_GE(choice.sampled_coverage, alpha - 1e-12);
  }
}

void ExpectSame(const LineChoice& lazy, const LineChoice& plain) {
  EXPECT_EQ(lazy.columns, plain.columns);
  EXPECT_EQ(lazy.slashes, plain.slashes);
  EXPECT_EQ(lazy.sampled_coverage, plain.sampled_coverage);
  EXPECT_EQ(lazy.cells, plain.cells);
}

enum class Weights { kFlat, kTies, kSparseTies, kAttention, kDirty, kWide, kCount };

void Normalize(std::span<float> row) {
  float sum = 0.0f;
  for (const float weight : row) sum += weight;
  for (float& weight : row) weight = sum > 0.0f ? weight / sum : 0.0f;
}

void Fill(Sample& sample, Weights weights, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform(0.01f, 1.0f);
  std::vector<float> columns(sample.problem().n_keys);
  for (float& column : columns) column = 0.05f * std::pow(uniform(random), -1.5f);
  for (size_t r = 0; r < sample.n_rows(); ++r) {
    const std::span<float> row = sample.Row(r);
    for (size_t key = 0; key < row.size(); ++key) {
      const float distance = static_cast<float>(row.size() - 1 - key);
      switch (weights) {
        case Weights::kTies:
          row[key] = 0.125f * static_cast<float>(random() % 4);
          break;
        case Weights::kSparseTies:
          row[key] = random() % 8 == 0 ? 0.25f : 0.0f;
          break;
        case Weights::kAttention:
        case Weights::kDirty:
          row[key] = uniform(random) * (columns[key] + 5.0f * std::exp(-distance / 3.0f)) + 0.05f * uniform(random);
          break;
        case Weights::kWide:  // sums of these depend on their order unless weights are rounded
          row[key] = uniform(random) * std::exp2(-static_cast<float>((columns[key] * 37 + random() % 20)));
          break;
        default:
          row[key] = uniform(random);
      }
    }
    // Ties stay multiples of 1/8: their sums are then equal in many ways.
    if (weights != Weights::kTies && weights != Weights::kSparseTies) Normalize(row);
    if (weights != Weights::kDirty) continue;
    if (random() % 4 == 0) std::ranges::fill(row, random() % 2 == 0 ? 0.0f : kNan);
    row[random() % row.size()] = kNan;
    row[random() % row.size()] = -0.5f;
  }
}

Sample RandomSample(int64_t n_keys, int64_t max_rows, std::mt19937& random) {
  const int64_t first_position = random() % 3 == 0 ? 0 : static_cast<int64_t>(random() % n_keys);
  std::vector<int64_t> positions;
  for (int64_t p = first_position; p < n_keys; ++p) positions.push_back(p);
  std::ranges::shuffle(positions, random);
  positions.resize(std::min<int64_t>(1 + random() % max_rows, positions.size()));
  std::ranges::sort(positions);
  return Sample(first_position, n_keys, positions, random() % 4);
}

std::vector<int32_t> RandomLines(int64_t n_keys, std::mt19937& random) {
  std::vector<int32_t> lines;
  for (int32_t i = 0; i < n_keys + 2; ++i) {  // some beyond the context
    if (random() % 4 == 0) lines.push_back(i);
  }
  return lines;
}

TEST(LineChoiceTest, HandComputedFromTheFirstKeyOn) {
  Sample sample(0, 3, {0, 1, 2});
  sample.SetRow(0, {1.0f});
  sample.SetRow(1, {0.5f, 0.5f});
  sample.SetRow(2, {0.5f, 0.25f, 0.25f});
  for (const auto choose : {ChooseLinesOfFewRows, ChooseLinesOfManyRows, ChooseLinesPlain}) {
    // Column 0 has 2 of 3 on 3 cells, ahead of slash 0 with 1.75 on 3.
    const LineChoice first = choose(sample.problem(), 0.6, {}, {});
    EXPECT_THAT(first.columns, ElementsAre(0));
    EXPECT_THAT(first.slashes, IsEmpty());
    EXPECT_EQ(first.cells, 3);
    EXPECT_DOUBLE_EQ(first.sampled_coverage, 2.0 / 3.0);
    // Of slash 0, 0.75 on 2 cells are left: as much as column 1 has, and columns go first.
    const LineChoice second = choose(sample.problem(), 0.9, {}, {});
    EXPECT_THAT(second.columns, ElementsAre(0, 1));
    EXPECT_THAT(second.slashes, IsEmpty());
    EXPECT_EQ(second.cells, 5);
    EXPECT_DOUBLE_EQ(second.sampled_coverage, 2.75 / 3.0);
    // The cell (2, 2) is left, for column 2 or slash 0.
    const LineChoice all = choose(sample.problem(), 1.0, {}, {});
    EXPECT_THAT(all.columns, ElementsAre(0, 1, 2));
    EXPECT_THAT(all.slashes, IsEmpty());
    EXPECT_EQ(all.cells, 6);
    EXPECT_EQ(all.sampled_coverage, 1.0);
  }
}

TEST(LineChoiceTest, HandComputedInALaterTurn) {
  Sample sample(2, 4, {2, 3});
  sample.SetRow(0, {0.1f, 0.0f, 0.9f});
  sample.SetRow(1, {0.1f, 0.0f, 0.3f, 0.6f});
  for (const auto choose : {ChooseLinesOfFewRows, ChooseLinesOfManyRows, ChooseLinesPlain}) {
    // Slash 0 (1.5 on 2 cells) leaves 0.3 on 1 cell to column 2, and nothing to column 3. Then column 0 (0.2 on 2
    // cells) and slash 3 (0.1 on 1) are equal.
    const LineChoice choice = choose(sample.problem(), 0.95, {}, {});
    EXPECT_THAT(choice.columns, ElementsAre(0, 2));
    EXPECT_THAT(choice.slashes, ElementsAre(0));
    EXPECT_EQ(choice.cells, 5);
    EXPECT_NEAR(choice.sampled_coverage, 1.0, 1e-7);
  }
}

TEST(LineChoiceTest, CellsAreThoseOfAllNewRowsNotOnlyTheSampledOnes) {
  Sample sample(3, 10, {9});
  std::ranges::fill(sample.Row(0), 0.0f);
  sample.Row(0)[1] = 1.0f;  // column 1, with 7 cells, or slash 8, with 2
  const LineChoice choice = ChooseLines(sample.problem(), 0.9);
  EXPECT_THAT(choice.columns, IsEmpty());
  EXPECT_THAT(choice.slashes, ElementsAre(8));
  EXPECT_EQ(choice.cells, 2);
}

TEST(LineChoiceTest, OneRowOfOneKey) {
  Sample sample(0, 1, {0}, 0);
  sample.SetRow(0, {1.0f});
  for (const double alpha : {0.3, 1.0}) {
    const LineChoice choice = ChooseLines(sample.problem(), alpha);
    EXPECT_THAT(choice.columns, ElementsAre(0));
    EXPECT_THAT(choice.slashes, IsEmpty());
    EXPECT_EQ(choice.sampled_coverage, 1.0);
    EXPECT_EQ(choice.cells, 1);
  }
}

TEST(LineChoiceTest, WithoutWeightNothingIsChosen) {
  Sample no_rows(1, 4, {});
  Sample zeros(1, 4, {1, 3});
  Sample unusable(1, 4, {2});
  for (const size_t row : {0, 1}) std::ranges::fill(zeros.Row(row), 0.0f);
  unusable.SetRow(0, {kNan, -1.0f, kNan});
  const std::vector<int32_t> warm = {0, 1, 2, 3};
  for (const Sample* sample : {&no_rows, &zeros, &unusable}) {
    for (const auto choose : {ChooseLinesOfFewRows, ChooseLinesOfManyRows, ChooseLinesPlain}) {
      const LineChoice choice = choose(sample->problem(), 0.9, warm, warm);
      EXPECT_THAT(choice.columns, IsEmpty());
      EXPECT_THAT(choice.slashes, IsEmpty());
      EXPECT_EQ(choice.sampled_coverage, 0.0);
      EXPECT_EQ(choice.cells, 0);
    }
  }
}

TEST(LineChoiceTest, UnusableWeightsCountAsZero) {
  Sample dirty(0, 4, {1, 3});
  Sample clean(0, 4, {1, 3});
  dirty.SetRow(0, {kNan, 0.75f});
  clean.SetRow(0, {0.0f, 0.75f});
  dirty.SetRow(1, {0.5f, -3.0f, kNan, 0.25f});
  clean.SetRow(1, {0.5f, 0.0f, 0.0f, 0.25f});
  for (const double alpha : {0.5, 0.9, 1.0}) {
    ExpectSame(ChooseLines(dirty.problem(), alpha), ChooseLines(clean.problem(), alpha));
    ExpectConsistent(dirty.problem(), alpha, ChooseLines(dirty.problem(), alpha));
  }
}

TEST(LineChoiceTest, WeightsAboveOneCountAsOne) {
  Sample sample(0, 3, {1, 2}), capped(0, 3, {1, 2});
  sample.SetRow(0, {0.25f, std::numeric_limits<float>::infinity()});
  capped.SetRow(0, {0.25f, 1.0f});
  sample.SetRow(1, {0.5f, 0.0f, 7.0f});
  capped.SetRow(1, {0.5f, 0.0f, 1.0f});
  for (const double alpha : {0.3, 0.75, 1.0}) {
    ExpectSame(ChooseLines(sample.problem(), alpha), ChooseLines(capped.problem(), alpha));
    ExpectConsistent(capped.problem(), alpha, ChooseLines(sample.problem(), alpha));
  }
}

TEST(LineChoiceTest, LazyEqualsPlainOnSmallProblems) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 1500; ++trial) {
    const int64_t n_keys = 1 + random() % (trial % 10 == 0 ? 60 : 25);
    Sample sample = RandomSample(n_keys, 12, random);
    const auto weights = static_cast<Weights>(trial % static_cast<int>(Weights::kCount));
    Fill(sample, weights, random);
    const LineProblem problem = sample.problem();
    const double alpha = trial % 7 == 0 ? 1.0 : 0.3 + 0.1 * (random() % 8);
    SCOPED_TRACE("trial " + std::to_string(trial));

    const LineChoice lazy = ChooseLinesOfManyRows(problem, alpha);
    ExpectSame(lazy, ChooseLinesPlain(problem, alpha));
    ExpectSame(lazy, ChooseLinesOfFewRows(problem, alpha));
    ExpectConsistent(problem, alpha, lazy);

    const std::vector<int32_t> columns = RandomLines(n_keys, random), slashes = RandomLines(n_keys, random);
    const LineChoice warm = ChooseLinesOfManyRows(problem, alpha, columns, slashes);
    ExpectSame(warm, ChooseLinesPlain(problem, alpha, columns, slashes));
    ExpectSame(warm, ChooseLinesOfFewRows(problem, alpha, columns, slashes));
    ExpectConsistent(problem, alpha, warm);
    if (HasFailure()) return;
  }
}

// Enough lines for several rebuilds of the queue, and lines long enough for its bounds to be tight.
TEST(LineChoiceTest, LazyEqualsPlainOverManyRebuilds) {
  std::mt19937 random(2);
  for (int trial = 0; trial < 60; ++trial) {
    const int64_t n_keys = 150 + random() % 150;
    Sample sample = RandomSample(n_keys, 40, random);
    Fill(sample, static_cast<Weights>(trial % static_cast<int>(Weights::kCount)), random);
    const LineProblem problem = sample.problem();
    const double alpha = trial % 3 == 0 ? 1.0 : 0.9;
    SCOPED_TRACE("trial " + std::to_string(trial));

    const LineChoice lazy = ChooseLinesOfManyRows(problem, alpha);
    ExpectSame(lazy, ChooseLinesPlain(problem, alpha));
    ExpectSame(lazy, ChooseLinesOfFewRows(problem, alpha));
    ExpectConsistent(problem, alpha, lazy);
    const std::vector<int32_t> columns = RandomLines(n_keys, random), slashes = RandomLines(n_keys, random);
    const LineChoice warm = ChooseLinesOfManyRows(problem, alpha, columns, slashes);
    ExpectSame(warm, ChooseLinesPlain(problem, alpha, columns, slashes));
    ExpectSame(warm, ChooseLinesOfFewRows(problem, alpha, columns, slashes));
    ExpectConsistent(problem, alpha, warm);
  }
}

TEST(LineChoiceTest, TakesWarmLinesThatAreNoWorseThanTheMean) {
  Sample sample(0, 4, {0, 1, 2, 3});
  sample.SetRow(0, {1.0f});
  sample.SetRow(1, {0.75f, 0.25f});
  sample.SetRow(2, {0.75f, 0.0f, 0.25f});
  sample.SetRow(3, {0.5f, 0.0f, 0.0f, 0.5f});
  // The mean is 4 / 10. Slash 0 has 2 / 4, column 1 has 0.25 / 3, and there is no column 9.
  const std::vector<int32_t> columns = {1, 9}, slashes = {-1, 0};
  const std::vector<int32_t> heavy_columns = {0, 3};  // 3 / 4 and 0.5 / 1
  for (const auto choose : {ChooseLinesOfFewRows, ChooseLinesOfManyRows, ChooseLinesPlain}) {
    const LineChoice cold = choose(sample.problem(), 0.75, {}, {});
    EXPECT_THAT(cold.columns, ElementsAre(0));
    EXPECT_THAT(cold.slashes, IsEmpty());
    const LineChoice warm = choose(sample.problem(), 0.75, columns, slashes);
    EXPECT_THAT(warm.columns, ElementsAre(0));
    EXPECT_THAT(warm.slashes, ElementsAre(0));
    EXPECT_EQ(warm.cells, 7);
    EXPECT_EQ(warm.sampled_coverage, 1.0);
    // Once alpha is reached, no more are tried. What a line shares with lines taken before does not speak for it: after
    // column 0, slash 0 has 1 / 3.
    EXPECT_THAT(choose(sample.problem(), 0.75, heavy_columns, slashes).columns, ElementsAre(0));
    const LineChoice both = choose(sample.problem(), 0.8, std::span(heavy_columns).first(1), slashes);
    EXPECT_THAT(both.columns, ElementsAre(0, 3));
    EXPECT_THAT(both.slashes, IsEmpty());
  }
}

TEST(LineChoiceTest, TheMeanForWarmLinesIsThatOfTheNewRows) {
  Sample sample(2, 4, {2, 3});
  sample.SetRow(0, {0.25f, 0.25f, 0.5f});
  sample.SetRow(1, {0.25f, 0.25f, 0.125f, 0.375f});
  // The mean is 2 / 7, columns 0 and 1 have 0.5 / 2.
  const std::vector<int32_t> columns = {0, 1};
  for (const auto choose : {ChooseLinesOfFewRows, ChooseLinesOfManyRows, ChooseLinesPlain}) {
    const LineChoice choice = choose(sample.problem(), 0.4, columns, {});
    EXPECT_THAT(choice.columns, IsEmpty());
    EXPECT_THAT(choice.slashes, ElementsAre(0));
  }
}

TEST(LineChoiceTest, ItsOwnChoiceAsWarmLinesCostsLittleMore) {
  std::mt19937 random(3);
  Sample sample(100, 400, {110, 150, 200, 201, 260, 300, 333, 371, 399});
  Fill(sample, Weights::kAttention, random);
  const LineProblem problem = sample.problem();
  for (const double alpha : {0.5, 0.8, 0.9}) {
    const LineChoice cold = ChooseLines(problem, alpha);
    const LineChoice warm = ChooseLines(problem, alpha, cold.columns, cold.slashes);
    ExpectConsistent(problem, alpha, warm);
    EXPECT_LE(static_cast<double>(warm.cells), 1.1 * static_cast<double>(cold.cells));
  }
}

}  // namespace
}  // namespace loopserve
