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

StoredResults Played() {
  StoredResults results{{{"model", "tiny"}}, {{"dense", "x"}}, {}, {}};
  std::vector<PlayedDialogue>& played = results.played;
  played = {TestPlayed("a", "dense", "end", {1, 0.5}),       TestPlayed("a", "loopserve", "end", {1, 0.5}),
            TestPlayed("a", "snapkv", "end", {0.5, 0.5}),    TestPlayed("b", "dense", "begin", {0.25, 0.75}),
            TestPlayed("b", "loopserve", "begin", {0, 0.5}), TestPlayed("b", "snapkv", "begin", {0.5, 0.5})};
  for (PlayedDialogue& one : played) {
    for (PlayedTurn& turn : one.turns) {
      turn.ttft_ms = one.policy == "dense" ? 100 : 50;
      turn.tpot_ms = one.policy == "dense" ? 10 : 5;
    }
  }
  played.push_back({.dialogue = "c", .policy = "dense", .threads = 2, .error = "too long"});
  return results;
}

TEST(MakeReport, HasScoresByPositionDatasetAndTurn) {
  const StoredResults results = Played();
  const Report report = MakeReport(results);
  const ReportTable* end = FindTable(report, "Scores, question at the end");
  ASSERT_NE(end, nullptr);
  EXPECT_EQ(end->columns, (std::vector<std::string>{"policy", "hotpotqa", "all", "answers", "sets of texts"}));
  EXPECT_EQ(end->rows[0], (std::vector<std::string>{"dense", "75.0", "75.0", "2", "1"}));
  EXPECT_EQ(end->rows.back(), (std::vector<std::string>{"answers", "2", "2", "", ""}));
  const ReportTable* turns = FindTable(report, "Scores by turn");
  ASSERT_NE(turns, nullptr);
  // Turn 1 of the two dialogues: 1 and 0.25.
  EXPECT_EQ(turns->rows[0][1], "62.5 [25.0, 100.0]");
  EXPECT_EQ(turns->rows[0][3], "62.5 [50.0, 75.0]");
  EXPECT_EQ(turns->rows.back(), (std::vector<std::string>{"answers", "2", "2", "4", "", ""}));
  const ReportTable* datasets = FindTable(report, "Scores by dataset");
  ASSERT_NE(datasets, nullptr);
  EXPECT_EQ(datasets->rows[0][1], "62.5 [50.0, 75.0]");
  const ReportTable* run = FindTable(report, "The run");
  ASSERT_NE(run, nullptr);
  EXPECT_EQ(run->rows.back(), (std::vector<std::string>{"dialogues that failed", "dense 1"}));
}

TEST(MakeReport, ComparesAnswerByAnswer) {
  const StoredResults results = Played();
  const Report report = MakeReport(results);
  const ReportTable* differences = FindTable(report, "Differences to full attention");
  ASSERT_NE(differences, nullptr);
  ASSERT_EQ(differences->rows.size(), 3u);  // not dense itself, but how many answers
  // Positions stand in the order of a text.
  EXPECT_EQ(differences->columns, (std::vector<std::string>{"policy", "begin", "end", "all", "answers"}));
  EXPECT_EQ(differences->rows[0][0], "loopserve");
  EXPECT_EQ(differences->rows[0][1], "-25.0");  // of one set of texts: no interval
  EXPECT_EQ(differences->rows[0][2], "+0.0");
  EXPECT_EQ(differences->rows[0][3], "-12.5 [-25.0, 0.0]");
  EXPECT_EQ(differences->rows[0][4], "4");
  EXPECT_EQ(differences->rows.back(), (std::vector<std::string>{"answers", "2", "2", "4", ""}));
  const ReportTable* speed = FindTable(report, "Speed and memory");
  ASSERT_NE(speed, nullptr);
  EXPECT_EQ(speed->rows[1][2], "2.00 [2.00, 2.00]");
  EXPECT_EQ(speed->rows[0][2], "1.00 [1.00, 1.00]");
}

TEST(MakeReport, ComparesOnlyDialoguesThatAllPoliciesFinished) {
  StoredResults results = Played();
  results.played.push_back(TestPlayed("d", "dense", "end", {1, 1, 1}));
  const Report report = MakeReport(results);
  const ReportTable* end = FindTable(report, "Scores, question at the end");
  ASSERT_NE(end, nullptr);
  EXPECT_EQ(end->rows.back()[1], "2");
  EXPECT_EQ(end->rows[0][2], "75.0");
  const ReportTable* run = FindTable(report, "The run");
  ASSERT_NE(run, nullptr);
  EXPECT_THAT(run->rows, testing::Contains(std::vector<std::string>{"dialogues", "2"}));
  EXPECT_THAT(run->rows, testing::Contains(std::vector<std::string>{
                             "dialogues left out, as not every policy has finished them", "1"}));
}

TEST(MakeReport, SaysHowManyAnswersWherePoliciesShareNoDialogue) {
  StoredResults results;
  results.played = {TestPlayed("a", "dense", "end", {1, 1, 1}), TestPlayed("b", "loopserve", "end", {1})};
  const Report report = MakeReport(results);
  const ReportTable* end = FindTable(report, "Scores, question at the end");
  ASSERT_NE(end, nullptr);
  EXPECT_EQ(end->rows.back()[1], "1 to 3");
}

TEST(MakeReport, DrawsDialoguesOnTheSameTextsTogether) {
  StoredResults results;
  // Of each set of texts three dialogues of the same difficulty: they say no more than one of them.
  for (const auto& [texts, score] : {std::pair("a", 0.0), {"b", 1.0}}) {
    for (const char* position : {"begin", "middle", "end"}) {
      results.played.push_back(TestPlayed(std::string(texts) + "-" + position, "dense", position, {score}));
    }
  }
  const Report report = MakeReport(results);
  const ReportTable* turns = FindTable(report, "Scores by turn");
  ASSERT_NE(turns, nullptr);
  EXPECT_EQ(turns->rows[0], (std::vector<std::string>{"dense", "50.0 [0.0, 100.0]", "50.0 [0.0, 100.0]", "6", "2"}));
}

TEST(MakeReport, DrawsDialoguesThatShareAnItemTogether) {
  StoredResults results;
  // a and b have an item in common, b and c another; d stands alone: two sets.
  for (const auto& [id, sources, score] :
       {std::tuple("a", "x y", 0.0), {"b", "y#1 z#2", 0.0}, {"c", "z", 0.0}, {"d", "w", 1.0}}) {
    results.played.push_back(TestPlayed(id, "dense", "end", {score}));
    results.played.back().turns[0].sources = sources;
  }
  const auto row = [&] { return FindTable(MakeReport(results), "Scores by turn")->rows[0]; };
  EXPECT_EQ(row(), (std::vector<std::string>{"dense", "25.0 [0.0, 100.0]", "25.0 [0.0, 100.0]", "4", "2"}));
  // The same names in another dataset are other items.
  results.played[1].turns[0].dataset = "qasper";
  EXPECT_EQ(row().back(), "4");
}

TEST(MakeReport, SaysHowMuchOfTheTextsWasCut) {
  StoredResults results;
  results.played = {TestPlayed("a", "dense", "end", {1, 1}), TestPlayed("a", "loopserve", "end", {1, 1})};
  results.played[0].turns[1].cut_tokens = 0;
  const Report report = MakeReport(results);
  const ReportTable* run = FindTable(report, "The run");
  ASSERT_NE(run, nullptr);
  EXPECT_THAT(run->rows, testing::Contains(std::vector<std::string>{"questions about texts that were cut",
                                                                    "1 of 2, by 3 tokens on average"}));
}

TEST(MakeReport, TimesOfDifferentThreadsAreNotCompared) {
  StoredResults results = Played();
  for (PlayedDialogue& one : results.played) one.threads = one.policy == "snapkv" ? 4 : 2;
  const Report report = MakeReport(results);
  const ReportTable* speed = FindTable(report, "Speed and memory");
  ASSERT_NE(speed, nullptr);
  EXPECT_EQ(speed->rows[1][2], "2.00 [2.00, 2.00]");
  EXPECT_EQ(speed->rows[2][2], "-");
  const ReportTable* run = FindTable(report, "The run");
  ASSERT_NE(run, nullptr);
  EXPECT_THAT(run->rows, testing::Contains(std::vector<std::string>{"threads", "2 or 4"}));
}

TEST(MakeReport, ShowsCostBesideScoreAndEveryPair) {
  StoredResults results = Played();
  for (PlayedDialogue& one : results.played) {
    for (PlayedTurn& turn : one.turns) {
      const double share = one.policy == "dense" ? 1 : 0.25;
      turn.output_tokens = 11;
      turn.prefill_attention_ms = 40 * share;
      turn.prefill_selection_ms = one.policy == "dense" ? 0 : 2;
      turn.decode_attention_ms = 20 * share;
      turn.decode_selection_ms = 0;
      turn.decode_kv_fraction = share;
      turn.kv_bytes = 3 << 20;
    }
  }
  const Report report = MakeReport(results);
  const ReportTable* cost = FindTable(report, "Score beside cost");
  ASSERT_NE(cost, nullptr);
  // Attention of a turn: 40 + 63 * 2, and 12 + 63 * 0.5.
  EXPECT_EQ(cost->rows[0],
            (std::vector<std::string>{"dense", "62.5 [50.0, 75.0]", "-12.5 [-25.0, 0.0]", "730", "166", "0.500",
                                      "1.000", "3.0", "0.50 [0.50, 0.50]", "0.26 [0.26, 0.26]", "4"}));
  EXPECT_EQ(cost->rows[1][2], "-");
  EXPECT_EQ(cost->rows[1][4], "44");
  const std::string of =
      ": how many times less the row takes than the column (the median of the quotients of the same turns)";
  const auto pair = [&](const std::string& title) { return FindTable(report, title + of); };
  ASSERT_NE(pair("Time to the first token"), nullptr);
  EXPECT_EQ(pair("Time to the first token")->columns[2], "loopserve");
  EXPECT_EQ(pair("Time to the first token")->rows[1], (std::vector<std::string>{"loopserve", "2.00", "-", "1.00"}));
  EXPECT_EQ(pair("Time for each token after it")->rows[0], (std::vector<std::string>{"dense", "-", "0.50", "0.50"}));
  EXPECT_EQ(pair("Attention and selection while reading")->rows[1][1], "3.33");
  EXPECT_EQ(pair("Attention and selection for each token written")->rows[1][1], "4.00");
  EXPECT_EQ(pair("KV read / held while writing")->rows[2][1], "4.00");
  EXPECT_EQ(pair("KV read / held while writing")->note, "Turns of a pair: 4.");
  const ReportTable* memory = FindTable(report, "KV after the turn, MiB, by turn");
  ASSERT_NE(memory, nullptr);
  EXPECT_EQ(memory->rows[0], (std::vector<std::string>{"dense", "3.0", "3.0"}));
  const ReportTable* reading = FindTable(report, "KV read / held while writing, by turn");
  ASSERT_NE(reading, nullptr);
  EXPECT_EQ(reading->rows[1], (std::vector<std::string>{"loopserve", "0.250", "0.250"}));
  const ReportList* verdicts = FindList(report);
  ASSERT_NE(verdicts, nullptr);
  EXPECT_THAT(verdicts->items[1], HasSubstr("0.26 of its attention's time, KV read 0.250 against 1.000"));
  int plots = 0;
  for (const ReportPart& part : report.parts) plots += std::holds_alternative<ReportPlot>(part) ? 1 : 0;
  EXPECT_EQ(plots, 3);
}

TEST(MakeReport, SaysWhereWeAreWorseAndWhereFewDialoguesLeaveItOpen) {
  const StoredResults results = Played();
  const Report report = MakeReport(results);
  const ReportList* verdicts = FindList(report);
  ASSERT_NE(verdicts, nullptr);
  ASSERT_EQ(verdicts->items.size(), 5u);
  EXPECT_THAT(verdicts->items[0], HasSubstr("On average"));
  EXPECT_EQ(verdicts->items[1],
            "NOT on average, against dense, question at the begin: -25.0 points (one point below full attention is "
            "allowed), in 0.50 of its time; 2 answers on 1 sets of texts.");
  EXPECT_THAT(verdicts->items[2], HasSubstr("Yes on average, against dense, question at the end: +0.0"));
  EXPECT_THAT(verdicts->items[3], HasSubstr("NOT on average, against snapkv, question at the begin: -25.0"));
  EXPECT_THAT(verdicts->items[4], HasSubstr("Yes on average, against snapkv, question at the end: +25.0"));
  EXPECT_THAT(verdicts->items[4], HasSubstr("in 1.00 of its time"));
}

TEST(MakeReport, JudgesByTheInterval) {
  const auto verdict = [](const std::vector<double>& ours, const std::vector<double>& others) {
    StoredResults results;
    for (size_t i = 0; i < ours.size(); ++i) {
      results.played.push_back(TestPlayed(std::to_string(i), "snapkv", "end", {others[i]}));
      results.played.push_back(TestPlayed(std::to_string(i), "loopserve:alpha=0.9", "end", {ours[i]}));
    }
    const Report report = MakeReport(results);
    return FindList(report)->items[1];
  };
  EXPECT_THAT(verdict({1, 1, 1}, {0.5, 0.75, 1}), HasSubstr("Yes, against"));
  EXPECT_THAT(verdict({0, 0, 0}, {0.5, 0.75, 1}), HasSubstr("NO, against"));
  EXPECT_THAT(verdict({1, 0, 1}, {0.5, 0.75, 0}), HasSubstr("Yes on average, against"));
  EXPECT_THAT(verdict({0, 1, 0}, {0.5, 0.75, 1}), HasSubstr("NOT on average, against"));
  // Sums of these differ in the last bit, the scores do not.
  EXPECT_THAT(verdict({0.3, 0.1, 0.1}, {0.3, 0.1, 0.1}), HasSubstr("Yes, against"));
  EXPECT_THAT(verdict({0.3, 0.1, 0.1}, {0.1, 0.2, 0.2}), HasSubstr("Yes on average, against"));
}

TEST(ReportForms, EscapeWhatFilesSay) {
  StoredResults results = Played();
  results.run = {{"model", "a\"b'&<i>"}};
  for (PlayedDialogue& one : results.played) {
    for (PlayedTurn& turn : one.turns) turn.dataset = "<script>alert(1)</script>|\n# x";
  }
  const Report report = MakeReport(results);
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
  const Report report = MakeReport({});
  EXPECT_THAT(ToMarkdown(report), HasSubstr("| dialogues | 0 |"));
  EXPECT_THAT(ToHtml(report), HasSubstr("</html>"));
}

TEST(FileNameOf, IsTheTitleInSmallLetters) {
  EXPECT_EQ(FileNameOf({"Score against attention's time, 2", "x", "y", {}}), "score-against-attentions-time-2.svg");
}

TEST(ToSvg, KeepsItsPointsInsideAndSurvivesOddValues) {
  ReportPlot plot{"t", "x", "y", {{"one", 10, 5, 4, 6, true}, {"same place", 10, 5, 4, 6, false}}};
  EXPECT_THAT(ToSvg(plot), HasSubstr("same place"));
  EXPECT_THAT(ToSvg(plot), Not(HasSubstr("nan")));
  EXPECT_THAT(ToSvg(plot), HasSubstr("var(--ours)"));
  EXPECT_THAT(ToSvgFile(plot), Not(HasSubstr("var(")));
  plot.points = {{"flat", 0, 0, 0, 0, false}};
  EXPECT_THAT(ToSvg(plot), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace loopserve::eval
