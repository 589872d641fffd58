#include "eval/context_cut.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "eval/test_items.h"
#include "src/base/utf8.h"

namespace loopserve::eval {
namespace {

using testing::ElementsAre;

std::string Numbers(int n, const char* between) {
  std::string text;
  for (int i = 0; i < n; ++i) text += (i > 0 ? between : "") + std::to_string(i);
  return text;
}

TEST(ContextCutTest, PartsBeginAtTheirMarkersAndLoseNothing) {
  const std::string text = "heading\nPassage 1:\nT\nPassage of time\nPassage 22:\nx Passage 3: y\nPassage 4\n";
  EXPECT_THAT(SplitParts(text, "Passage "),
              ElementsAre("heading\nPassage 1:\nT\nPassage of time\n", "Passage 22:\nx Passage 3: y\nPassage 4\n"));
  EXPECT_THAT(SplitParts("Question: a\nType: b\nQuestion: c", "Question: "),
              ElementsAre("Question: a\nType: b\n", "Question: c"));
  EXPECT_THAT(SplitParts(text, ""), ElementsAre(text));
  EXPECT_THAT(SplitParts("", "Passage "), ElementsAre(""));
  EXPECT_THAT(SplitParts("Passage 7:", "Passage "), ElementsAre("Passage 7:"));
}

TEST(ContextCutTest, PassageNumbers) {
  EXPECT_EQ(PassageNumber("Passage 12:\nx"), 12);
  EXPECT_EQ(PassageNumber("Passage 12 x"), 0);
  EXPECT_EQ(PassageNumber("Passage :"), 0);
  EXPECT_EQ(PassageNumber("Passage"), 0);
  EXPECT_EQ(PassageNumber(" Passage 1:"), 0);
  EXPECT_GT(PassageNumber("Passage 99999999999999999999:"), 1'000'000);
}

TEST(ContextCutTest, BreaksAtTheBestSeamNearTheMiddle) {
  const std::string half(45, 'a');
  EXPECT_EQ(MiddleBreak(half + "b\n\nb b.\nb. b" + half, ""), 48u);
  EXPECT_EQ(MiddleBreak(half + "b. b\nb" + half, ""), 50u);
  EXPECT_EQ(MiddleBreak(half + "b. b b" + half, ""), 48u);
  EXPECT_EQ(MiddleBreak(half + " bbbbb" + half, ""), 46u);
  EXPECT_EQ(MiddleBreak("a\n\n" + half + half, ""), 46u) << "a seam far from the middle is none";
  const std::string part = "Passage 1:\n" + half + "\n";
  EXPECT_EQ(MiddleBreak(part + part + part + part + part, "Passage "), 2 * part.size());
  EXPECT_EQ(MiddleBreak(half + half + "\n" + std::string(60, 'a') + "\nPassage 2:\nx\nPassage 3:\ny", "Passage "), 91u)
      << "parts far from the middle leave nothing for the other half";
  EXPECT_EQ(MiddleBreak("", ""), 0u);
}

TEST(ContextCutTest, NeverBreaksWithinACharacter) {
  std::string text;
  for (int i = 0; i < 40; ++i) {
    text += "\xF0\x9F\x98\x80";
    const size_t at = MiddleBreak(text, "");
    EXPECT_TRUE(IsValidUtf8(text.substr(0, at))) << i;
    const auto count = [](std::string_view part) { return static_cast<int64_t>(part.size()); };
    for (int64_t room = 0; room < static_cast<int64_t>(text.size()); room += 3) {
      const CutText cut = CutMiddle(text, count(text), room, count);
      EXPECT_TRUE(IsValidUtf8(cut.text));
      EXPECT_LE(count(cut.text), room + 1) << "the line end between the halves";
    }
  }
}

TEST(ContextCutTest, CutsInTheMiddleAndCountsWhatIsGone) {
  const std::string text = Numbers(1000, " ");
  for (const int64_t room : {0, 1, 2, 3, 10, 101, 500, 998, 999}) {
    const CutText cut = CutMiddle(text, 1000, room, CountWords);
    EXPECT_LE(CountWords(cut.text), room);
    EXPECT_GE(CountWords(cut.text), room - room / 64 - 4) << "nearly all of the room is used";
    EXPECT_EQ(cut.cut_tokens, 1000 - CountWords(cut.text));
    if (room < 10) continue;  // a half of a few bytes may stay empty
    EXPECT_TRUE(cut.text.starts_with("0")) << cut.text;
    EXPECT_TRUE(cut.text.ends_with("999")) << cut.text;
    const size_t seam = cut.text.find('\n');
    ASSERT_NE(seam, std::string::npos);
    EXPECT_NEAR(static_cast<double>(CountWords(cut.text.substr(0, seam))), static_cast<double>(room) / 2,
                static_cast<double>(room) / 64 + 3);
  }
  EXPECT_EQ(CutMiddle(text, 1000, 1000, CountWords).text, text);
  EXPECT_EQ(CutMiddle(text, 1000, 1000, CountWords).cut_tokens, 0);
}

TEST(ContextCutTest, CutsTextWhoseTokensAreUneven) {
  // A token of 900 bytes at the beginning, then one for each letter: the first guesses are far off.
  const std::string text = std::string(900, '_') + std::string(3000, 'x');
  const auto count = [](std::string_view part) {
    const auto letters = static_cast<int64_t>(std::count(part.begin(), part.end(), 'x'));
    return letters + (part.find('_') == std::string_view::npos ? 0 : 1);
  };
  for (const int64_t room : {2, 50, 700, 2900}) {
    const CutText cut = CutMiddle(text, count(text), room, count);
    EXPECT_LE(count(cut.text), room);
    EXPECT_GE(count(cut.text), room - room / 64 - 8);
  }
}

TEST(ContextCutTest, PartsNearestToTheMiddleGoFirstAndNeededOnesStay) {
  const struct {
    std::vector<int64_t> tokens;
    std::vector<bool> needed;
    int64_t room;
    std::vector<bool> kept;
  } cases[] = {
      {{10, 10, 10, 10}, {false, false, false, false}, 40, {true, true, true, true}},
      {{10, 10, 10, 10}, {false, false, false, false}, 39, {true, false, true, true}},
      {{10, 10, 10, 10}, {false, false, false, false}, 20, {true, false, false, true}},
      {{10, 10, 10, 10}, {false, true, false, false}, 20, {false, true, false, true}},
      {{10, 10, 10}, {false, true, false}, 5, {false, true, false}},
      {{10, 10, 10}, {true, true, true}, 5, {true, true, true}},
      {{10, 50, 10}, {false, false, false}, 20, {true, false, true}},
      {{7}, {false}, 3, {false}},
      {{}, {}, 3, {}},
  };
  for (const auto& c : cases) EXPECT_EQ(DropMiddleParts(c.tokens, c.needed, c.room), c.kept) << c.room;
}

TEST(ContextCutTest, NeededPartsAreDividedOverTurns) {
  const struct {
    std::vector<bool> needed;
    std::vector<bool> first;
  } cases[] = {
      {{false, true, true, false}, {true, true, false, false}},
      {{true, true, false, false}, {true, false, true, false}},
      {{false, false, true, true}, {true, false, true, false}},
      {{true, true, true}, {true, true, false}},
      {{false, false, false}, {true, false, false}},
      {{true, false}, {true, false}},
      {{true, false, true, false, true, false, true}, {true, true, true, false, false, false, false}},
  };
  for (const auto& c : cases) EXPECT_EQ(SplitOverTurns(c.needed), c.first);
}

}  // namespace
}  // namespace loopserve::eval
