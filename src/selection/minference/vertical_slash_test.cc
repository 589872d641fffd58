#include "src/selection/minference/vertical_slash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

namespace loopserve {
namespace {

/// The last rows of a turn with made-up weights, and the plain choice: every line's sum, cell by cell, sorted.
class Turn {
 public:
  Turn(int64_t first_position, int64_t n_keys, int distinct_weights, uint32_t seed = 1)
      : first_position_(first_position), n_keys_(n_keys) {
    std::mt19937 random(seed);
    for (int64_t p = std::max(first_position, n_keys - kVerticalSlashRows); p < n_keys; ++p) positions_.push_back(p);
    weights_.assign(positions_.size() * static_cast<size_t>(n_keys), NAN);  // beyond a row's position: never read
    for (size_t r = 0; r < positions_.size(); ++r) {
      for (int64_t t = 0; t <= positions_[r]; ++t) {
        // Few distinct values with exact sums: ties everywhere.
        At(r, t) = static_cast<float>(random() % static_cast<uint32_t>(distinct_weights)) / 1024.0f;
      }
    }
  }

  float& At(size_t row, int64_t key) { return weights_[row * static_cast<size_t>(n_keys_) + static_cast<size_t>(key)]; }
  LineProblem Problem() const { return {first_position_, n_keys_, {positions_, weights_.data(), n_keys_}}; }

  VerticalSlash Plain(int64_t n_columns, int64_t n_slashes) {
    VerticalSlash plain;
    plain.slashes = PlainLines(std::min(n_keys_, std::max<int64_t>(n_slashes, 50)), 100,
                               [](int64_t position, int64_t line) { return position - line; });
    if (static_cast<int64_t>(plain.slashes.size()) < n_keys_) {
      plain.columns = PlainLines(std::min(n_keys_, std::max<int64_t>(n_columns, 30)), 30,
                                 [](int64_t, int64_t line) { return line; });
    }
    return plain;
  }

 private:
  template <class KeyOf>
  std::vector<int32_t> PlainLines(int64_t count, int64_t forced, const KeyOf& key_of) {
    std::vector<std::pair<double, int32_t>> lines;  // negative, so that ascending is heaviest first
    for (int64_t line = 0; line < n_keys_; ++line) {
      double sum = line < forced ? INFINITY : 0;
      for (size_t r = 0; r < positions_.size(); ++r) {
        const int64_t key = key_of(positions_[r], line);
        if (key >= 0 && key <= positions_[r]) sum += At(r, key);
      }
      lines.emplace_back(-sum, static_cast<int32_t>(line));
    }
    std::sort(lines.begin(), lines.end());
    std::vector<int32_t> taken;
    for (int64_t i = 0; i < count; ++i) taken.push_back(lines[static_cast<size_t>(i)].second);
    std::sort(taken.begin(), taken.end());
    return taken;
  }

  int64_t first_position_;
  int64_t n_keys_;
  std::vector<int64_t> positions_;
  std::vector<float> weights_;
};

TEST(VerticalSlashTest, IsThePlainFormula) {
  const struct {
    const char* name;
    int64_t first_position, n_keys, n_columns, n_slashes;
    int distinct_weights;
  } kCases[] = {
      {"a whole prompt", 0, 400, 60, 150, 1024},
      {"a turn on a history", 310, 500, 100, 130, 1024},
      {"fewer rows than decide", 480, 500, 50, 120, 1024},
      {"ties", 0, 300, 45, 120, 3},
      {"all weights equal", 0, 300, 45, 120, 1},
      {"the least numbers", 0, 300, 1, 1, 64},
      {"fewer keys than forced slashes", 0, 90, 40, 80, 64},
      {"fewer keys than forced columns", 0, 20, 1000, 6096, 64},
      {"more lines than keys", 0, 200, 1000, 6096, 64},
      {"more columns than keys", 0, 200, 1000, 150, 64},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    Turn turn(c.first_position, c.n_keys, c.distinct_weights);
    const VerticalSlash expected = turn.Plain(c.n_columns, c.n_slashes);
    const VerticalSlash actual = ChooseVerticalSlash(turn.Problem(), c.n_columns, c.n_slashes);
    EXPECT_EQ(actual.columns, expected.columns);
    EXPECT_EQ(actual.slashes, expected.slashes);
  }
}

TEST(VerticalSlashTest, AColumnAndASlashThatStandOutAreFound) {
  Turn turn(0, 1000, 2);
  for (size_t r = 0; r < 64; ++r) {
    const int64_t position = 936 + static_cast<int64_t>(r);
    turn.At(r, 500) = 1;             // a column
    turn.At(r, position - 300) = 1;  // a slash
  }
  const VerticalSlash lines = ChooseVerticalSlash(turn.Problem(), 31, 101);
  EXPECT_EQ(lines.columns.size(), 31u);
  EXPECT_EQ(lines.columns.back(), 500);
  EXPECT_EQ(lines.slashes.size(), 101u);
  EXPECT_EQ(lines.slashes.back(), 300);
}

TEST(VerticalSlashTest, TilesAreWhatTheSlashesMeetInSomeRow) {
  std::mt19937 random(4);
  for (int trial = 0; trial < 50; ++trial) {
    const int64_t first = random() % 300, last = first + random() % 64;
    std::set<int32_t> slashes, columns;
    for (uint32_t i = 0; i < random() % 12 + 1; ++i) slashes.insert(static_cast<int32_t>(random() % 400));
    for (uint32_t i = 0; i < random() % 30; ++i) columns.insert(static_cast<int32_t>(random() % 400));
    std::set<int32_t> expected;
    for (const int32_t slash : slashes) {
      for (int64_t key = std::max<int64_t>(0, first - slash); key <= last - slash; ++key) {
        expected.insert(static_cast<int32_t>(key / 16));
      }
    }
    std::vector<int32_t> tiles;
    TilesOfSlashes(std::vector<int32_t>(slashes.begin(), slashes.end()), first, last, 16, &tiles);
    EXPECT_EQ(tiles, std::vector<int32_t>(expected.begin(), expected.end()));
    int64_t outside = 0;
    for (const int32_t column : columns) outside += column <= last && !expected.contains(column / 16) ? 1 : 0;
    EXPECT_EQ(ColumnsOutside(std::vector<int32_t>(columns.begin(), columns.end()), tiles, 16, last), outside);
  }
}

}  // namespace
}  // namespace loopserve
