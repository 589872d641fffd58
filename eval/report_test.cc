#include "eval/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/test_results.h"

namespace loopserve::eval {
namespace {

using testing::HasSubstr;
using testing::Not;

const ReportTable* FindTable(const Report& report, const std::string& title) {
  for (const ReportPart& part : report.parts) {
    const auto* table = std::get_if<ReportTable>(&part);
    if (table != nullptr && table->title == title) return table;
  }
  return nullptr;
}

const ReportList* FindList(const Report& report) {
  for (const ReportPart& part : report.parts) {
    if (const auto* list = std::get_if<ReportList>(&part)) return list;
  }
  return nullptr;
}

std::vector<PlayedDialogue> Played() {
  std::vector<PlayedDialogue> played = {
      TestPlayed("a", "dense", "end", {1, 0.5}),       TestPlayed("a", "loopserve", "end", {1, 0.5}),
      TestPlayed("a", "snapkv", "end", {0.5, 0.5}),    TestPlayed("b", "dense", "begin", {0.25, 0.75}),
      TestPlayed("b", "loopserve", "begin", {0, 0.5}), TestPlayed("b", "snapkv", "begin", {0.5, 0.5})};
  for (PlayedDialogue& one : played) {
    for (PlayedTurn& turn : one.turns) {
      turn.ttft_ms = one.policy == "dense" ? 100 : 50;
      turn.tpot_ms = one.policy == "dense" ? 10 : 5;
    }
  }
  played.push_back({.dialogue = "c", .policy = "dense", .threads = 2, .error = "too long"});
  return played;
}

TEST(MakeReport, HasScoresByPositionDatasetAndTurn) {
  const auto played = Played();
  const Report report = MakeReport({{"model", "tiny"}}, {{"dense", "x"}}, played);
  const ReportTable* end = FindTable(report, "Scores, question at the end");
  ASSERT_NE(end, nullptr);
  EXPECT_EQ(end->columns, (std::vector<std::string>{"policy", "hotpotqa", "all", "answers", "dialogues"}));
  EXPECT_EQ(end->rows[0], (std::vector<std::string>{"dense", "75.0", "75.0 [75.0, 75.0]", "2", "1"}));
  const ReportTable* turns = FindTable(report, "Scores by turn");
  ASSERT_NE(turns, nullptr);
  // Turn 1 of the two dialogues: 1 and 0.25.
  EXPECT_EQ(turns->rows[0][1], "62.5 [25.0, 100.0]");
  EXPECT_EQ(turns->rows[0][3], "62.5 [50.0, 75.0]");
  const ReportTable* run = FindTable(report, "The run");
  ASSERT_NE(run, nullptr);
  EXPECT_EQ(run->rows.back(), (std::vector<std::string>{"plays that failed and are left out", "1"}));
}

TEST(MakeReport, ComparesAnswerByAnswer) {
  const auto played = Played();
  const Report report = MakeReport({}, {}, played);
  const ReportTable* differences = FindTable(report, "Differences to full attention");
  ASSERT_NE(differences, nullptr);
  ASSERT_EQ(differences->rows.size(), 2u);  // not dense itself
  // Positions stand in the order of a text.
  EXPECT_EQ(differences->columns, (std::vector<std::string>{"policy", "begin", "end", "all", "answers"}));
  EXPECT_EQ(differences->rows[0][0], "loopserve");
  EXPECT_EQ(differences->rows[0][1], "-25.0 [-25.0, -25.0]");
  EXPECT_EQ(differences->rows[0][2], "+0.0 [0.0, 0.0]");
  EXPECT_EQ(differences->rows[0][4], "4");
  const ReportTable* speed = FindTable(report, "Speed and memory");
  ASSERT_NE(speed, nullptr);
  EXPECT_EQ(speed->rows[1][2], "2.00 [2.00, 2.00]");
  EXPECT_EQ(speed->rows[0][2], "1.00 [1.00, 1.00]");
}

TEST(MakeReport, SaysWhereWeAreWorse) {
  const auto played = Played();
  const Report report = MakeReport({}, {}, played);
  const ReportList* verdicts = FindList(report);
  ASSERT_NE(verdicts, nullptr);
  ASSERT_EQ(verdicts->items.size(), 4u);
  EXPECT_EQ(verdicts->items[0],
            "NO, against dense, question at the begin: -25.0 [-25.0, -25.0] points (one point below full attention is "
            "allowed), in 0.50 of its time; 2 answers of 1 dialogues.");
  EXPECT_THAT(verdicts->items[1], HasSubstr("Yes, against dense, question at the end: +0.0"));
  EXPECT_THAT(verdicts->items[2], HasSubstr("NO, against snapkv, question at the begin: -25.0"));
  EXPECT_THAT(verdicts->items[3], HasSubstr("Yes, against snapkv, question at the end: +25.0"));
  EXPECT_THAT(verdicts->items[3], HasSubstr("in 1.00 of its time"));
}

TEST(ReportForms, EscapeWhatFilesSay) {
  auto played = Played();
  for (PlayedDialogue& one : played) {
    for (PlayedTurn& turn : one.turns) turn.dataset = "<script>alert(1)</script>|\n# x";
  }
  const Report report = MakeReport({{"model", "a\"b'&<i>"}}, {}, played);
  const std::string html = ToHtml(report);
  EXPECT_THAT(html, Not(HasSubstr("<script>")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;"));
  EXPECT_THAT(html, HasSubstr("a&quot;b&#39;&amp;&lt;i&gt;"));
  EXPECT_THAT(html, HasSubstr("<svg"));
  const std::string markdown = ToMarkdown(report);
  EXPECT_THAT(markdown, Not(HasSubstr("<script>")));
  EXPECT_THAT(markdown, Not(HasSubstr("\n# x")));
}

TEST(ReportForms, NothingPlayedGivesAReportThatSaysSo) {
  const Report report = MakeReport({}, {}, {});
  EXPECT_THAT(ToMarkdown(report), HasSubstr("| dialogues | 0 |"));
  EXPECT_THAT(ToHtml(report), HasSubstr("</html>"));
}

TEST(ToSvg, KeepsItsPointsInsideAndSurvivesOddValues) {
  ReportPlot plot{"t", "x", "y", {{"one", 10, 5, 4, 6, true}, {"same place", 10, 5, 4, 6, false}}};
  EXPECT_THAT(ToSvg(plot), HasSubstr("same place"));
  EXPECT_THAT(ToSvg(plot), Not(HasSubstr("nan")));
  plot.points = {{"flat", 0, 0, 0, 0, false}};
  EXPECT_THAT(ToSvg(plot), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace loopserve::eval
