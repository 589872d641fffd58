#include "src/base/json_nesting.h"

#include <gtest/gtest.h>

#include <string>

namespace loopserve {
namespace {

TEST(JsonNestingTest, CountsBracketsOutsideOfTexts) {
  EXPECT_EQ(ShapeOfJson("").depth, 0);
  EXPECT_EQ(ShapeOfJson("{\"a\": [1, {\"b\": \"[[[{\\\"[\"}]}").depth, 3);
  EXPECT_EQ(ShapeOfJson(std::string(60'000, '[')).depth, 60'000);
  EXPECT_EQ(ShapeOfJson("]]]}}}[").depth, 1);
}

TEST(JsonNestingTest, CountsTheMembersOfObjectsAlone) {
  EXPECT_EQ(ShapeOfJson("[1, 2, 3, 4]").max_members, 0u);
  EXPECT_EQ(ShapeOfJson("{\"a\": [1, 2, 3, 4], \"b\": {\"c\": 1, \"d\": 2, \"e\": \",,,\"}}").max_members, 3u);
  EXPECT_EQ(ShapeOfJson(std::string(5000, '{') + "1,2,3" + std::string(5000, '}') + ",,").max_members, 0u);
}

}  // namespace
}  // namespace loopserve
