#include "src/selection/lines/line_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace loopserve {
namespace {

using testing::ElementsAre;

TEST(LineSumsTest, EveryCellOnItsColumnAndSlash) {
  const std::vector<int64_t> positions = {1, 3};
  const std::vector<float> weights = {1, 2, NAN, NAN, 4, 8, 16, 32};  // beyond a row's position: never read
  std::vector<double> columns = {9}, slashes = {9};
  SumLines({positions, weights.data(), 4}, 4, &columns, &slashes);
  EXPECT_THAT(columns, ElementsAre(5, 10, 16, 32));
  EXPECT_THAT(slashes, ElementsAre(2 + 32, 1 + 16, 8, 4));
}

TEST(LineSumsTest, RowsThatAreNotFiniteCountAsNothing) {
  const std::vector<int64_t> positions = {0, 1, 2};
  const std::vector<float> weights = {NAN, 0, 0, 1, INFINITY, 0, 1, 2, 4};
  std::vector<double> columns, slashes;
  SumLines({positions, weights.data(), 3}, 3, &columns, &slashes);
  EXPECT_THAT(columns, ElementsAre(1, 2, 4));
  EXPECT_THAT(slashes, ElementsAre(4, 2, 1));
}

}  // namespace
}  // namespace loopserve
