#include "src/selection/row_sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>

namespace loopserve {
namespace {

TEST(RowSampleTest, OneRowOfEachStratum) {
  for (const int64_t n_rows : {1, 5, 6, 7, 96, 1000}) {
    for (int64_t block = 0; block < 50; ++block) {
      std::array<int64_t, 6> rows{};
      const int n = SampleStrata({1, 2, 3, block}, 100, n_rows, 6, rows.data());
      ASSERT_EQ(n, std::min<int64_t>(6, n_rows));
      for (int i = 0; i < n; ++i) {
        EXPECT_GE(rows[static_cast<size_t>(i)], 100 + n_rows * i / n);
        EXPECT_LT(rows[static_cast<size_t>(i)], 100 + n_rows * (i + 1) / n);
      }
    }
  }
}

TEST(RowSampleTest, DependsOnEveryPartOfItsKeyAndNothingElse) {
  std::set<int64_t> seen;
  for (const SampleKey& key : {SampleKey{0, 0, 0, 0}, SampleKey{1, 0, 0, 0}, SampleKey{0, 1, 0, 0},
                               SampleKey{0, 0, 1, 0}, SampleKey{0, 0, 0, 1}}) {
    int64_t once = 0, again = 0;
    SampleStrata(key, 0, 1'000'000'000, 1, &once);
    SampleStrata(key, 0, 1'000'000'000, 1, &again);
    EXPECT_EQ(once, again);
    seen.insert(once);
  }
  EXPECT_EQ(seen.size(), 5u);
}

TEST(RowSampleTest, HeldOutRowsWereNotSampledAndReachEveryOther) {
  const std::array<int64_t, 3> sampled = {10, 12, 15};
  std::set<int64_t> seen;
  for (int64_t block = 0; block < 500; ++block) {
    const int64_t row = HeldOutRow({7, 0, 0, block}, 10, 6, sampled);
    EXPECT_FALSE(std::ranges::find(sampled, row) != sampled.end());
    seen.insert(row);
  }
  EXPECT_EQ(seen, (std::set<int64_t>{11, 13, 14}));
}

}  // namespace
}  // namespace loopserve
