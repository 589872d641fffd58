#include "eval/metrics.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "eval/unicode_text.h"

namespace loopserve::eval {
namespace {

constexpr double kTolerance = 1e-12;  // the same f64 operations as in Python, a few roundings apart

TEST(MetricsTest, AgreeWithThePublicProgramsOnAThousandPairs) {
  std::ifstream file(LOOPSERVE_EVAL_TESTDATA "/metric_goldens.jsonl");
  std::string line;
  ASSERT_TRUE(std::getline(file, line));
  const auto classes = nlohmann::json::parse(line).at("classes").get<std::vector<std::string>>();
  int pairs = 0;
  int with_class = 0;
  while (std::getline(file, line)) {
    const auto row = nlohmann::json::parse(line);
    const std::string answer = row.at("a");
    const std::string reference = row.at("r");
    EXPECT_NEAR(TokenF1(answer, reference), row.at("f1").get<double>(), kTolerance) << line;
    EXPECT_NEAR(RougeL(answer, reference), row.at("rouge_l").get<double>(), kTolerance) << line;
    EXPECT_NEAR(RougeLPublic(answer, reference), row.at("public_rouge_l").get<double>(), kTolerance) << line;
    if (row.contains("accuracy")) {
      EXPECT_NEAR(ClassAccuracy(answer, reference, classes), row.at("accuracy").get<double>(), kTolerance) << line;
      ++with_class;
    }
    ++pairs;
  }
  EXPECT_EQ(pairs, 1000);
  EXPECT_GT(with_class, 90);
}

TEST(MetricsTest, TheBothRougesCoincideWhereTheirDefinitionsDo) {
  // One sentence of distinct lower-case words: sets and sequences, and both ways to cut words, are then the same.
  const struct {
    std::string answer, reference;
    double score;
  } cases[] = {
      {"one two three", "one two three", 1.0},
      {"one two three four", "one three", 2.0 / 3},
      {"two one", "one two", 0.5},
      {"five six", "one two", 0.0},
  };
  for (const auto& c : cases) {
    EXPECT_NEAR(RougeLPublic(c.answer, c.reference), c.score, kTolerance) << c.answer;
    EXPECT_NEAR(RougeL(c.answer, c.reference), c.score, 1e-8) << c.answer;  // the package's own 1e-8
  }
}

TEST(MetricsTest, RougeLReadsLongSentencesThatThePackageGivesUpOn) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "w" + std::to_string(i) + " ";
  EXPECT_NEAR(RougeL(text, text), 1.0, 1e-7);
}

TEST(MetricsTest, ScoreTakesTheBestReference) {
  const std::vector<std::string> references = {"a red house", "the old mill", "old mills"};
  EXPECT_DOUBLE_EQ(Score(Metric::kTokenF1, "old mill", references, {}, false), 1.0);
  EXPECT_DOUBLE_EQ(Score(Metric::kTokenF1, "old mill", std::vector<std::string>{}, {}, false), 0.0);
  EXPECT_NEAR(Score(Metric::kRougeL, "the old mill", references, {}, false), 1.0, 1e-7);
}

TEST(MetricsTest, FirstLineOnlySkipsEmptyLinesAndDropsTheRest) {
  const std::vector<std::string> references = {"Date"};
  const std::vector<std::string> classes = {"Date", "Food"};
  EXPECT_DOUBLE_EQ(Score(Metric::kClassAccuracy, "\n\nDate\nFood", references, classes, true), 1.0);
  EXPECT_DOUBLE_EQ(Score(Metric::kClassAccuracy, "\n\nDate\nFood", references, classes, false), 0.5);
  EXPECT_DOUBLE_EQ(Score(Metric::kClassAccuracy, " \nDate", references, classes, true), 0.0);
  EXPECT_DOUBLE_EQ(Score(Metric::kClassAccuracy, "\n\n", references, classes, true), 0.0);
  EXPECT_DOUBLE_EQ(Score(Metric::kClassAccuracy, "", references, classes, true), 0.0);
}

TEST(MetricsTest, BytesThatAreNoUtf8NeitherMatchNorStop) {
  EXPECT_DOUBLE_EQ(TokenF1("\xFF mill \xC3", "mill"), 0.5);
  EXPECT_DOUBLE_EQ(RougeLPublic("\xE2\x82", "x"), 0.0);
}

TEST(UnicodeTextTest, DecodesEveryLengthAndReplacesBadBytes) {
  EXPECT_EQ(ToCodePoints("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), U"a\u00E9\u20AC\U0001F600");
  EXPECT_EQ(ToCodePoints("\x80x\xED\xA0\x80\xF4\x90"), U"\uFFFDx\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST(UnicodeTextTest, LowersAsPythonDoes) {
  EXPECT_EQ(Lower(U"AZ\u00C9\u0100\u0130\u1E9E\uA64A\U00010400\u01C5"),
            U"az\u00E9\u0101i\u0307\u00DF\uA64B\U00010428\u01C6");
  EXPECT_EQ(Lower(U"\u03A3 \u0391\u03A3 \u0391\u03A3\u0391 \u0391'\u03A3'"),
            U"\u03C3 \u03B1\u03C2 \u03B1\u03C3\u03B1 \u03B1'\u03C2'");
}

}  // namespace
}  // namespace loopserve::eval
