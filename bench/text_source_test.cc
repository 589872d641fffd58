#include "bench/text_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <set>

#include "src/base/temp_dir.h"

namespace loopserve::bench {
namespace {

TEST(ValidateTextTest, TellsTextFromWhatIsNone) {
  EXPECT_TRUE(ValidateText("plain, and g\xC3\xBCltig\n").ok());
  EXPECT_EQ(ValidateText("").code(), StatusCode::kInvalidArgument);
  EXPECT_NE(ValidateText(std::string_view("ab\0c", 4)).message().find("offset 2"), std::string::npos);
  EXPECT_NE(ValidateText("abc\xFF").message().find("offset 3"), std::string::npos);
}

TEST(ReadTextTest, NamesTheFile) {
  const TempDir folder;
  const std::string path = (folder.path() / "t.txt").string();
  EXPECT_EQ(ReadText(path).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadText(folder.path().string()).status().code(), StatusCode::kIoError);
  std::ofstream(path) << "words";
  EXPECT_EQ(*ReadText(path), "words");
  std::ofstream(path, std::ios::trunc) << "";
  EXPECT_NE(ReadText(path).status().message().find(path), std::string::npos);
}

TEST(RepeatTokensTest, RepeatsOrCuts) {
  EXPECT_EQ(RepeatTokens(std::vector<Token>{1, 2, 3}, 7), (std::vector<Token>{1, 2, 3, 1, 2, 3, 1}));
  EXPECT_EQ(RepeatTokens(std::vector<Token>{1, 2, 3}, 2), (std::vector<Token>{1, 2}));
}

TEST(SyntheticTokensTest, UsesWordsAndPeriodsOnlyAndAlwaysTheSame) {
  const std::vector<std::string> vocabulary = {"<s>",    ".",     " alpha", " beta", "gamma", " Del", " x1",
                                               " epsil", " zeta", " eta",   "theta", " iota", "!",    " kappa"};
  const auto text_of = [&](Token token) { return vocabulary[static_cast<size_t>(token)]; };
  const auto tokens = SyntheticTokens(static_cast<int>(vocabulary.size()), text_of, 500);
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  EXPECT_EQ(tokens->size(), 500u);
  const std::set<Token> allowed = {1, 2, 3, 4, 7, 8, 9, 10, 11, 13};
  EXPECT_TRUE(std::all_of(tokens->begin(), tokens->end(), [&](Token t) { return allowed.contains(t); }));
  EXPECT_NEAR(static_cast<double>(std::count(tokens->begin(), tokens->end(), 1)), 500 / 15.0, 3);
  EXPECT_EQ(*SyntheticTokens(static_cast<int>(vocabulary.size()), text_of, 500), *tokens);
  EXPECT_EQ(SyntheticTokens(4, text_of, 10).status().code(), StatusCode::kUnsupported);
}

TEST(SpeedPromptTest, KeepsTheContextAndChangesTheRestInEveryRound) {
  std::vector<Token> text(1000);
  std::iota(text.begin(), text.end(), 0);
  const SpeedCase on_context{.context_tokens = 100, .new_tokens = 50};
  const auto first = SpeedPrompt(text, on_context, 1, 0);
  const auto second = SpeedPrompt(text, on_context, 1, 1);
  EXPECT_EQ(first, std::vector<Token>(text.begin(), text.begin() + 150)) << "round 0 is the text itself";
  EXPECT_EQ(second.size(), 150u);
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + 100, second.begin()));
  EXPECT_NE(first[100], second[100]);

  const SpeedCase whole{.context_tokens = 0, .new_tokens = 50};
  EXPECT_EQ(SpeedPrompt(text, whole, 1, 2)[0], text[0]) << "begin of text stays";
  EXPECT_NE(SpeedPrompt(text, whole, 1, 2)[1], text[1]);
  const auto enough = static_cast<size_t>(SpeedTextTokens(on_context, 3));
  EXPECT_EQ(SpeedPrompt(std::span(text).first(enough), on_context, 1, 2).size(), 150u);
}

}  // namespace
}  // namespace loopserve::bench
