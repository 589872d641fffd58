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

TEST(ResultsToJsonTest, HasEveryField) {
  std::vector<PlayedDialogue> played = {TestPlayed("a", "dense", "end", {0.5})};
  played.push_back({.dialogue = "b", .policy = "dense", .threads = 2, .error = "too long"});
  const Json json = ResultsToJson({{"model", "tiny"}}, {{"dense", "alpha=1"}}, played);
  EXPECT_EQ(json["schema"], kResultSchema);
  EXPECT_EQ(json["run"]["model"], "tiny");
  EXPECT_EQ(json["policies"]["dense"], "alpha=1");
  const Json& turn = json["dialogues"][0]["turns"][0];
  for (const TurnField& field : TurnFields()) EXPECT_TRUE(turn.contains(field.name)) << field.name;
  EXPECT_EQ(turn["score"], 0.5);
  EXPECT_EQ(turn["reference"], Json::parse(R"(["blue river", "it's blue"])"));
  EXPECT_TRUE(turn["tpot_ms"].is_null());
  EXPECT_FALSE(json["dialogues"][0].contains("error"));
  EXPECT_EQ(json["dialogues"][1]["error"], "too long");
}

}  // namespace
}  // namespace loopserve::eval
