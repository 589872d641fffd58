// Answers that have a form, through the public API, against a plain twin: the largest logit of the tokens that a look
// at each of them allows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <regex>

#include "loopserve/engine.h"
#include "src/gguf/gguf_file.h"
#include "src/tokenizer/tokenizer.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

constexpr char kSparse[] = "loopserve:min_keys=64,decode_min_keys=64,budget=64,recent=8";
constexpr char kWords[] = "root ::= [a-z]{2,5} (\" \" [a-z]{2,5}){3} [.!?]\n";

class AnswerFormTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::path(testing::TempDir()) / ("form_" + std::to_string(getpid()) + ".gguf")).string();
    ASSERT_TRUE(WriteTinyGguf(TinyModel(TinyFamily::kLlama), path_).ok());
    EngineOptions options;
    options.model_path = path_;
    options.threads = 1;
    engine_ = *Engine::Open(options);
    tokenizer_ = std::move(Tokenizer::Load(**GgufFile::Open(path_))).value();
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Session Prompted(const std::string& policy) const {
    Session session = engine_->NewSession(*Policy::Parse(policy));
    std::string text;
    for (int i = 0; i < 60; ++i) text += "the world is " + std::to_string(i) + " ";
    EXPECT_TRUE(session.Sync(*engine_->Tokenize(text, true, false)).ok());
    return session;
  }

  std::string path_;
  std::shared_ptr<Engine> engine_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(AnswerFormTest, GreedyIsTheLargestAllowedLogitUnderEveryPolicy) {
  SamplingParams params;
  params.max_tokens = 64;
  params.form.grammar = kWords;
  for (const std::string& policy : {std::string("dense"), std::string(kSparse)}) {
    Session session = Prompted(policy);
    auto answer = session.BeginAnswer(params);
    ASSERT_TRUE(answer.ok()) << answer.status().message();
    const auto twin = std::move(tokenizer_->NewMatcher(kWords, "")).value();
    std::string text;
    for (bool ended = false; !ended;) {
      const auto step = answer->Next();
      ASSERT_TRUE(step.ok()) << step.status().message();
      Token best = -1;
      float largest = -std::numeric_limits<float>::infinity();
      for (Token token = 0; token < tokenizer_->n_vocab(); ++token) {
        const float logit = session.logits()[static_cast<size_t>(token)];
        if (twin->Allows(token) && logit > largest) {
          largest = logit;
          best = token;
        }
      }
      ASSERT_EQ(step->token, best);
      ASSERT_TRUE(twin->Accept(step->token).ok());
      text += step->text;
      ended = step->ended;
    }
    EXPECT_TRUE(std::regex_match(text, std::regex("[a-z]{2,5}( [a-z]{2,5}){3}[.!?]"))) << text;
    EXPECT_EQ(answer->stats().stop_reason, StopReason::kEndOfText);
    EXPECT_EQ(answer->stats().text, text);
  }
}

// How often each token is drawn: as often as its share of the allowed tokens' probability says.
TEST_F(AnswerFormTest, DrawsKeepTheProportionsOfAllowedTokens) {
  Session session = Prompted("dense");
  SamplingParams params;
  params.max_tokens = 1;
  params.temperature = 1.0f;
  params.form.grammar = "root ::= [a-f] \"!\"\n";
  const auto matcher = std::move(tokenizer_->NewMatcher(params.form.grammar, "")).value();
  double sum = 0;
  std::vector<double> share(static_cast<size_t>(tokenizer_->n_vocab()), 0.0);
  for (size_t token = 0; token < share.size(); ++token) {
    if (matcher->Allows(static_cast<Token>(token))) sum += share[token] = std::exp(session.logits()[token]);
  }
  constexpr int kDraws = 3000;
  std::vector<int> drawn(share.size(), 0);
  for (int i = 0; i < kDraws; ++i) {
    params.seed = static_cast<uint64_t>(i);
    auto answer = session.BeginAnswer(params);
    ASSERT_TRUE(answer.ok());
    ++drawn[static_cast<size_t>(answer->Next()->token)];
  }
  for (size_t token = 0; token < share.size(); ++token) {
    const double p = share[token] / sum;
    // Five standard deviations.
    EXPECT_NEAR(drawn[token], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)) + 1e-9) << token;
  }
}

TEST_F(AnswerFormTest, AfterTheTriggerTheGrammarRules) {
  SamplingParams params;
  params.max_tokens = 200;
  params.temperature = 1.5f;
  params.ignore_end_of_text = true;
  params.form.grammar = "root ::= \"e\" [0-9]{4} \"e\"\n";
  params.form.trigger = "e";
  int n_triggered = 0;
  for (int seed = 0; seed < 10; ++seed) {
    params.seed = static_cast<uint64_t>(seed);
    Session session = Prompted("dense");
    const auto stats = session.Generate(params);
    ASSERT_TRUE(stats.ok()) << stats.status().message();
    const size_t at = stats->text.find('e');
    if (at == std::string::npos) continue;
    ++n_triggered;
    EXPECT_TRUE(std::regex_match(stats->text.substr(at), std::regex("e[0-9]{4}e"))) << stats->text;
    EXPECT_EQ(stats->stop_reason, StopReason::kEndOfText);
  }
  EXPECT_GT(n_triggered, 5);
  // At the start alone: later ones are text like any other.
  params.form.trigger_at_start = true;
  params.seed = 3;
  Session session = Prompted("dense");
  const auto stats = session.Generate(params);
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->output_tokens, stats->text.starts_with("e") ? 6 : 200);
}

TEST_F(AnswerFormTest, DeadEndsAndWrongGrammarsAreErrors) {
  SamplingParams params;
  params.form.grammar = "root ::= \"a\" [\\U00000000]\n";  // no token has that character
  Session session = Prompted("dense");
  EXPECT_TRUE(engine_->CheckForm(params.form).ok());
  EXPECT_EQ(session.Generate(params).status().code(), StatusCode::kUnsupported);
  params.form.grammar = "root ::= (";
  EXPECT_EQ(engine_->CheckForm(params.form).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(session.BeginAnswer(params).status().code(), StatusCode::kInvalidArgument);
  params.form.grammar = kWords;
  EXPECT_TRUE(session.Generate(params).ok()) << "the session goes on";
}

}  // namespace
}  // namespace loopserve
