#include "src/cli/inspect_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/cli/inspect_summary.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

HeadAttention Head(double density, const std::vector<int32_t>& columns, const std::vector<int32_t>& slashes) {
  HeadAttention head;
  head.density = density;
  head.sampled_coverage = 0.96;
  head.heldout_coverage = 0.9;
  for (const int32_t column : columns) head.columns.push_back({column, 0.25f});
  for (const int32_t slash : slashes) head.slashes.push_back({slash, 0.5f});
  return head;
}

/// Two turns of 100 tokens; one layer of two heads.
InspectReport TwoTurns() {
  InspectReport report;
  report.inspector.turns.resize(2);
  report.inspector.turns[0].n_rows = 100;
  report.inspector.turns[0].layers = {{3, {Head(0.2, {0, 1, 2, 3}, {0}), Head(0.4, {}, {0, 1})}}};
  TurnAttention& second = report.inspector.turns[1];
  second.first_position = second.n_rows = 100;
  second.layers = {{3, {Head(0.1, {2, 3, 150}, {7}), Head(0.5, {}, {0, 1, 2, 3})}}};
  for (HeadAttention& head : second.layers[0].heads) {
    head.coverage_by_last_lines = 0.8;
    head.column_resampled = {.possible = 100, .before = 4, .now = 4, .both = 3};
    head.slash_resampled = LineOverlap{};  // nothing chosen: not counted
  }
  report.prefill_density = {1.0, 1.0};
  report.layer_windows = {64, 64, 64, 0};
  report.text_of = [](int64_t position) { return position == 3 ? "a\n\"" : "x"; };
  return report;
}

TEST(SummarizeTest, MeansOverHeadsAndOverlapWithTheTurnBefore) {
  const InspectReport report = TwoTurns();
  const std::vector<HeadInTurn> first = HeadsOf(report.inspector.turns[0], nullptr);
  EXPECT_EQ(Summarize(first).column_overlap, std::nullopt);
  EXPECT_EQ(Summarize(first).coverage_by_last_lines, std::nullopt);
  const std::vector<HeadInTurn> heads = HeadsOf(report.inspector.turns[1], &report.inspector.turns[0]);
  ASSERT_EQ(heads.size(), 2u);
  const AttentionSummary summary = Summarize(heads);
  EXPECT_DOUBLE_EQ(summary.density, 0.3);
  EXPECT_EQ(summary.density_p10, 0.1);
  EXPECT_EQ(summary.density_p90, 0.5);
  EXPECT_EQ(Summarize(std::span(heads).first(1)).density_p10, std::nullopt);
  EXPECT_DOUBLE_EQ(summary.columns, 1.5);
  EXPECT_DOUBLE_EQ(*summary.heldout_coverage, 0.9);
  EXPECT_DOUBLE_EQ(*summary.coverage_by_last_lines, 0.8);
  // Columns: {0, 1, 2, 3} and {2, 3}, 150 is new; the other head has none. Slashes: nothing of one, two of two.
  ASSERT_TRUE(summary.column_overlap && summary.slash_overlap);
  EXPECT_DOUBLE_EQ(summary.column_overlap->of_smaller, 1.0);
  EXPECT_DOUBLE_EQ(summary.column_overlap->jaccard, 0.5);
  EXPECT_DOUBLE_EQ(summary.column_overlap->by_chance, 0.04);
  EXPECT_DOUBLE_EQ(summary.slash_overlap->of_smaller, 0.5);
  EXPECT_DOUBLE_EQ(summary.slash_overlap->jaccard, 0.25);
}

TEST(InspectReportTest, TablesForPeople) {
  InspectReport report = TwoTurns();
  const std::string by_layer = FormatInspectReport(report);
  EXPECT_THAT(by_layer, HasSubstr("turn 1: 100 new tokens, 100 keys\n"));
  EXPECT_THAT(by_layer, HasSubstr("turn 2: 100 new tokens, 200 keys\n"));
  EXPECT_THAT(by_layer, HasSubstr("not looked at: 0, 1, 2\n"));
  EXPECT_THAT(by_layer, HasSubstr("   0.50 of 0.60           0.25       0.800\n"));
  EXPECT_THAT(by_layer,
              HasSubstr("columns chosen in a turn and in the one before: 0.50 of those chosen in either, 1.00 of "
                        "the smaller choice (by chance 0.04); by two samples of the same turn: 0.60, 0.75\n"));
  EXPECT_THAT(by_layer, HasSubstr("0.25 of those chosen in either, 0.50 of the smaller choice (by chance 0.03)\n"));
  EXPECT_THAT(by_layer, HasSubstr("turn before hold 0.800 of the weight of held-out rows, those of the turn itself"));
  report.inspector.options.layer = 3;
  report.inspector.options.map_head = 0;
  const std::string by_head = FormatInspectReport(report);
  EXPECT_THAT(by_head, HasSubstr("200 keys, layer 3\n head"));
  EXPECT_THAT(by_head, HasSubstr("turn 1, layer 3, head 0: 4 columns; the strongest: key, weight, token\n"));
  EXPECT_THAT(by_head, HasSubstr("         3   0.2500  \"a\\n\\\"\"\n"));
  EXPECT_THAT(by_head, HasSubstr("         7   0.5000  \n"));
}

TEST(InspectReportTest, JsonHasTheDocumentedKeys) {
  InspectReport report = TwoTurns();
  const Json json = InspectReportToJson(report);
  const Json& turn = json["turns"][1];
  EXPECT_EQ(turn["first_position"], 100);
  EXPECT_EQ(turn["new_tokens"], 100);
  EXPECT_EQ(turn["keys"], 200);
  EXPECT_EQ(turn["layers"].size(), 1u);
  EXPECT_EQ(turn["layers"][0]["layer"], 3);
  const Json& head = turn["layers"][0]["heads"][0];
  for (const char* key :
       {"head", "density", "floor", "sampled_coverage", "heldout_coverage", "columns", "slashes", "column_share",
        "sink_share", "near_share", "column_overlap", "slash_overlap", "coverage_by_last_lines", "computed_pairs"}) {
    EXPECT_TRUE(head.contains(key)) << key;
  }
  EXPECT_EQ(head["columns"], 3);
  EXPECT_EQ(head["column_overlap"]["jaccard"], 0.5);
  EXPECT_EQ(head["column_resampled"]["of_smaller"], 0.75);
  EXPECT_TRUE(head["slash_resampled"].is_null());
  EXPECT_FALSE(head.contains("column_lines"));
  EXPECT_TRUE(json["turns"][0]["all"]["column_overlap"].is_null());
  EXPECT_TRUE(turn["layers"][0]["heads"][1]["column_overlap"].is_null());  // no columns in either turn
  report.inspector.options.layer = 3;
  const Json with_lines = InspectReportToJson(report);
  EXPECT_EQ(with_lines["turns"][1]["layers"][0]["heads"][0]["column_lines"]["index"], Json::parse("[2,3,150]"));
}

TEST(QuoteTokenTest, EscapesWhatATerminalMustNotSee) {
  EXPECT_EQ(QuoteToken(" the"), "\" the\"");
  EXPECT_EQ(QuoteToken("\n\t\"\\"), "\"\\n\\t\\\"\\\\\"");
  EXPECT_EQ(QuoteToken("\x1b[2J"), "\"\\x1b[2J\"");
  EXPECT_EQ(QuoteToken("caf\xc3\xa9"), "\"caf\xc3\xa9\"");
  EXPECT_EQ(QuoteToken("\xc3"), "\"\\xc3\"");
}

}  // namespace
}  // namespace loopserve
