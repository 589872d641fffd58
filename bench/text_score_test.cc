#include "bench/text_score.h"

#include <gtest/gtest.h>

#include <cmath>

#include "src/base/temp_dir.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve::bench {
namespace {

/// Gives the same row everywhere.
class FixedScorer : public Scorer {
 public:
  explicit FixedScorer(std::vector<float> row, WindowFigures figures = {}) : row_(std::move(row)), figures_(figures) {}
  int n_vocab() const override { return static_cast<int>(row_.size()); }
  Status Score(const ScoredWindow& window, const LogitsCallback& on_logits, WindowFigures* figures) override {
    for (const ScoredTurn& turn : window.turns) {
      const size_t rows = turn.answer.empty() ? turn.prompt.size() - 1 : turn.answer.size();
      for (size_t i = 0; i < rows; ++i) on_logits(static_cast<int64_t>(i), row_);
    }
    if (figures != nullptr) *figures = figures_;
    return Status::Ok();
  }

 private:
  std::vector<float> row_;
  WindowFigures figures_;
};

std::vector<float> Logs(const std::vector<double>& probabilities) {
  std::vector<float> logs;
  for (const double p : probabilities) logs.push_back(static_cast<float>(std::log(p)));
  return logs;
}

ScoredWindow Plain(std::vector<Token> tokens) { return {{{std::move(tokens), {}}}}; }

std::vector<std::vector<Token>> PromptsOf(const std::vector<ScoredWindow>& windows) {
  std::vector<std::vector<Token>> prompts;
  for (const ScoredWindow& window : windows) {
    EXPECT_EQ(window.turns.size(), 1u);
    prompts.push_back(window.turns[0].prompt);
  }
  return prompts;
}

TEST(CutWindowsTest, CoversTheTextWithBeginOfTextInEveryWindow) {
  const std::vector<Token> text = {1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(PromptsOf(CutWindows(text, std::vector<Token>{9}, 4)),
            (std::vector<std::vector<Token>>{{9, 1, 2, 3}, {9, 4, 5, 6}, {9, 7}}));
  EXPECT_EQ(PromptsOf(CutWindows(text, {}, 3)), (std::vector<std::vector<Token>>{{1, 2, 3}, {4, 5, 6}}))
      << "a lone last token predicts nothing";
  EXPECT_TRUE(CutWindows(std::vector<Token>{1}, {}, 8).empty());
}

TEST(CutWindowsTest, TheLastTokensAreTheAnswer) {
  const auto windows = CutWindows(std::vector<Token>{1, 2, 3, 4, 5, 6, 7}, std::vector<Token>{9}, 6, 2);
  ASSERT_EQ(windows.size(), 1u) << "three tokens are no prompt of two with an answer of two";
  EXPECT_EQ(windows[0].turns[0].prompt, (std::vector<Token>{9, 1, 2, 3}));
  EXPECT_EQ(windows[0].turns[0].answer, (std::vector<Token>{4, 5}));
  EXPECT_EQ(windows[0].n_tokens(), 6);
}

TEST(ScoreTextTest, AnswersAreScoredTurnByTurn) {
  FixedScorer ours(Logs({0.5, 0.25, 0.25}));
  FixedScorer reference(Logs({0.25, 0.5, 0.25}));
  const ScoredWindow dialogue = {{{{2, 2}, {0, 0}}, {{2, 2, 0, 0, 2}, {1}}}};
  const auto score = ScoreText({dialogue}, ours, &reference);
  ASSERT_TRUE(score.ok()) << score.status().message();
  EXPECT_EQ(score->tokens, 6);
  EXPECT_EQ(score->scored_positions, 3);
  EXPECT_TRUE(score->by_turn);
  ASSERT_EQ(score->parts.size(), 2u);
  EXPECT_EQ(score->parts[0].first_position, 1);
  EXPECT_EQ(score->parts[0].scored_positions, 2);
  EXPECT_NEAR(score->parts[0].nll, std::log(2.0), 1e-6);
  EXPECT_EQ(score->parts[1].scored_positions, 1);
  EXPECT_NEAR(score->parts[1].nll, std::log(4.0), 1e-6);
  EXPECT_NEAR(*score->parts[1].kl, *score->kl, 1e-6);
}

TEST(ScoreTextTest, MatchesTheDefinitionsByHand) {
  FixedScorer ours(Logs({0.5, 0.25, 0.25}), {.prefill_density = 0.5});
  FixedScorer reference(Logs({0.25, 0.5, 0.25}));
  const auto score = ScoreText({Plain({0, 0, 1}), Plain({2, 0})}, ours, &reference);
  ASSERT_TRUE(score.ok()) << score.status().message();
  EXPECT_EQ(score->tokens, 5);
  EXPECT_EQ(score->scored_positions, 3);
  EXPECT_EQ(score->windows, 2);
  EXPECT_NEAR(score->nll, (2 * std::log(2.0) + std::log(4.0)) / 3, 1e-6);
  EXPECT_NEAR(*score->nll_against, (2 * std::log(4.0) + std::log(2.0)) / 3, 1e-6);
  const double kl = 0.25 * std::log(0.5) + 0.5 * std::log(2.0);
  EXPECT_NEAR(*score->kl, kl, 1e-6);
  EXPECT_NEAR(*score->kl_max, kl, 1e-6);
  EXPECT_EQ(*score->top1_agreement, 0);
  EXPECT_EQ(score->figures.prefill_density, 0.5);
  EXPECT_EQ(score->figures.coverage_heldout, std::nullopt);
}

TEST(ScoreTextTest, RefusesWhatCannotBeScored) {
  FixedScorer ours(Logs({0.5, 0.5}));
  FixedScorer other(Logs({0.5, 0.25, 0.25}));
  EXPECT_EQ(ScoreText({}, ours, nullptr).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ScoreText({Plain({0, 1})}, ours, &other).status().code(), StatusCode::kInvalidArgument);
}

TEST(ParseAgainstTest, KnowsLlamaCppAndPolicies) {
  EXPECT_EQ(ParseAgainst("llama.cpp")->name, "llama.cpp:arithmetic=exact");
  EXPECT_EQ(ParseAgainst("llama.cpp:arithmetic=quantized")->kind, AgainstSpec::Kind::kLlamaCppQuantized);
  EXPECT_EQ(ParseAgainst("full")->name, "dense");
  for (const char* spec : {"llama.cpp:", "llama.cpp:fast=1", "llama.cpp:arithmetic=f16", "nonsense"}) {
    EXPECT_EQ(ParseAgainst(spec).status().code(), StatusCode::kInvalidArgument) << spec;
  }
}

TEST(ScoreTextTest, OurEngineAgreesWithLlamaCppOnTheSameWeights) {
  const TempDir folder;
  TinyGgufOptions options = TinyModel(TinyFamily::kQwen2);
  options.weight_type = GGML_TYPE_Q8_0;
  const std::string path = (folder.path() / "model.gguf").string();
  ASSERT_TRUE(WriteTinyGguf(options, path).ok());
  EngineOptions engine_options{.model_path = path, .threads = 2};
  engine_options.linear_path = LinearPath::kF32;
  auto engine = Engine::Open(engine_options);
  if (!engine.ok()) {
    engine_options.linear_path = LinearPath::kAuto;
    engine = Engine::Open(engine_options);
  }
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  auto reference = MakeLlamaCppScorer({.model_path = path,
                                       .threads = 2,
                                       .context_tokens = 256,
                                       .n_vocab = (*engine)->model().n_vocab,
                                       .exact = true,
                                       .scratch_path = (folder.path() / "scratch").string()});
  ASSERT_TRUE(reference.ok()) << reference.status().message();
  std::vector<Token> text;
  for (int i = 0; i < 400; ++i) text.push_back((i * 31 + i / 7) % 200);
  auto ours = MakeEngineScorer(*engine, Policy(), nullptr);
  const auto score = ScoreText(CutWindows(text, {}, 256), *ours, reference->get());
  ASSERT_TRUE(score.ok()) << score.status().message();
  EXPECT_EQ(score->windows, 2);
  EXPECT_LT(*score->kl, 1e-3);
  EXPECT_GT(*score->top1_agreement, 0.97);
  EXPECT_EQ(score->figures.prefill_density, 1.0);
}

}  // namespace
}  // namespace loopserve::bench
