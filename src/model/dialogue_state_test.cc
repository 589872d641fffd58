#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "src/model/dialogue.h"

namespace loopserve {
namespace {

std::vector<float> Rows(int64_t n, float first) {
  std::vector<float> rows(static_cast<size_t>(2 * n));
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

TEST(RecentQueriesTest, KeepsTheNewestOfEveryLayer) {
  RecentQueries queries(2, 3, 2);
  queries.Store(0, 10, 5, Rows(5, 100).data());  // positions 10 to 14: 100, 102, ...
  queries.Store(1, 10, 1, Rows(1, 500).data());
  EXPECT_EQ(queries.Find(0, 11), nullptr);
  ASSERT_NE(queries.Find(0, 12), nullptr);
  EXPECT_EQ(queries.Find(0, 12)[0], 104);
  EXPECT_EQ(queries.Find(0, 14)[1], 109);
  EXPECT_EQ(queries.Find(1, 14), nullptr);
  EXPECT_EQ(queries.Find(1, 10)[0], 500);
  EXPECT_EQ(queries.Find(0, -1), nullptr);
  queries.Store(0, 15, 1, Rows(1, 900).data());
  EXPECT_EQ(queries.Find(0, 12), nullptr);
  EXPECT_EQ(queries.Find(0, 15)[0], 900);
  EXPECT_EQ(queries.Find(0, 13)[0], 106);
}

TEST(RecentQueriesTest, ForgetsWhatWasRewound) {
  RecentQueries queries(1, 4, 2);
  queries.Store(0, 0, 8, Rows(8, 0).data());
  queries.Truncate(6);
  EXPECT_NE(queries.Find(0, 5), nullptr);
  EXPECT_EQ(queries.Find(0, 6), nullptr);
  EXPECT_EQ(queries.Find(0, 7), nullptr);
  queries.Store(0, 6, 1, Rows(1, 70).data());
  EXPECT_EQ(queries.Find(0, 6)[0], 70);
}

TEST(RecentQueriesTest, NothingIsKeptWhereNothingIsWanted) {
  RecentQueries queries(1, 0, 2);
  queries.Store(0, 0, 8, Rows(8, 0).data());
  EXPECT_EQ(queries.Find(0, 7), nullptr);
}

}  // namespace
}  // namespace loopserve
