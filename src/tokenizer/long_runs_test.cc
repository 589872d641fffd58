#include "src/tokenizer/long_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace loopserve {
namespace {

std::string Repeated(const std::string& unit, int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += unit;
  return text;
}

std::vector<size_t> Sizes(const std::string& text) {
  std::vector<size_t> sizes;
  std::string joined;
  for (const std::string_view piece : CutLongRuns(text)) {
    sizes.push_back(piece.size());
    joined += piece;
  }
  EXPECT_EQ(joined, text);
  return sizes;
}

TEST(CutLongRuns, LeavesProseAlone) {
  EXPECT_TRUE(CutLongRuns("").empty());
  EXPECT_THAT(Sizes("a"), testing::ElementsAre(1));
  const std::string prose = Repeated("some words of a text, ", 1000);
  EXPECT_THAT(Sizes(prose), testing::ElementsAre(prose.size()));
  EXPECT_THAT(Sizes(Repeated("a", 2048)), testing::ElementsAre(2048));
}

TEST(CutLongRuns, CutsRunsOfAnyKindBetweenCharacters) {
  EXPECT_THAT(Sizes(Repeated("a", 5000)), testing::ElementsAre(2048, 2048, 904));
  EXPECT_THAT(Sizes(Repeated(" ", 2049)), testing::ElementsAre(2048, 1));
  EXPECT_THAT(Sizes(Repeated("\xE3\x80\x80", 2049)), testing::ElementsAre(3 * 2048, 3));
  EXPECT_THAT(Sizes(Repeated("\xF0\x9F\x98\x80", 2049)), testing::ElementsAre(4 * 2048, 4));
  EXPECT_THAT(Sizes(Repeated("a", 2000) + " " + Repeated("b", 2000)), testing::ElementsAre(4001));
}

TEST(CutLongRuns, PrefersToCutBeforePunctuation) {
  EXPECT_THAT(Sizes(Repeated("a", 2000) + "," + Repeated("b", 2000)), testing::ElementsAre(2000, 2001));
  EXPECT_THAT(Sizes(Repeated("a", 1000) + "," + Repeated("b", 2000)), testing::ElementsAre(2048, 953));  // too far back
  const std::string chinese = Repeated("\xE4\xB8\xAD", 2040) + "\xE3\x80\x82" + Repeated("\xE4\xB8\xAD", 100);
  EXPECT_THAT(Sizes(chinese), testing::ElementsAre(3 * 2040, 3 * 101));
}

TEST(SplitsByStdRegex, KnowsTheHandWrittenSplitters) {
  EXPECT_FALSE(SplitsByStdRegex("qwen2"));
  EXPECT_FALSE(SplitsByStdRegex("llama-bpe"));
  EXPECT_TRUE(SplitsByStdRegex("tekken"));
  EXPECT_TRUE(SplitsByStdRegex(""));
}

}  // namespace
}  // namespace loopserve
