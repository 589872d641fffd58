#include "eval/result_report.h"

#include <gtest/gtest.h>

#include "eval/test_results.h"

namespace loopserve::eval {
namespace {

TEST(ScoreTableTest, MeansByPositionWithTheNumberOfAnswers) {
  std::vector<PlayedDialogue> played = {TestPlayed("a", "dense", "end", {1, 0.5}),
                                        TestPlayed("a", "p:x=1", "end", {0, 0.25}),
                                        TestPlayed("b", "dense", "begin", {0.125})};
  played[2].turns.push_back(TestTurn(2, "begin", std::nullopt));
  EXPECT_EQ(ScoreTable(played),
            "mean score x 100  begin  middle   end   all  answers\n"
            "dense              12.5       -  75.0  54.2        3\n"
            "p:x=1                 -       -  12.5  12.5        2\n");
  EXPECT_EQ(ScoreTable({}), "");
}

}  // namespace
}  // namespace loopserve::eval
