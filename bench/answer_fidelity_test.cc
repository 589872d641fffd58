#include "bench/answer_fidelity.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <random>

#include "bench/metrics.h"
#include "src/base/temp_dir.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve::bench {
namespace {

TEST(LogitsSpoolTest, GivesRowsBackInAnyOrder) {
  const TempDir dir;
  auto spool = LogitsSpool::Create(dir.path().string(), 3);
  ASSERT_TRUE(spool.ok()) << spool.status().message();
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  for (int i = 0; i < 5; ++i) {
    const float row[] = {static_cast<float>(i), 0.5f, -1e30f};
    ASSERT_TRUE(spool->Append(row).ok());
  }
  for (const int64_t i : {4, 0, 2, 2}) {
    const auto row = spool->Row(i);
    ASSERT_TRUE(row.ok());
    EXPECT_EQ((*row)[0], static_cast<float>(i));
    EXPECT_EQ((*row)[2], -1e30f);
  }
  EXPECT_FALSE(LogitsSpool::Create("/nonexistent", 3).ok());
}

TEST(LogitsSpoolTest, AFullDiskIsAnIoError) {
  const TempDir dir;
  auto spool = LogitsSpool::Create(dir.path().string(), 1024);
  ASSERT_TRUE(spool.ok());
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = 5000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const std::vector<float> row(1024);
  const Status first = spool->Append(row), second = spool->Append(row);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_TRUE(first.ok());
  EXPECT_EQ(second.code(), StatusCode::kIoError);
  EXPECT_EQ(spool->n_rows(), 1);
}

class AnswerFidelityTest : public testing::Test {
 protected:
  void SetUp() override {
    EngineOptions options;
    options.model_path = (dir_.path() / "m.gguf").string();
    options.threads = 1;
    ASSERT_TRUE(WriteTinyGguf(TinyModel(TinyFamily::kLlama), options.model_path).ok());
    auto engine = Engine::Open(options);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    engine_ = *engine;
    std::mt19937 random(7);
    for (size_t t = 0; t < 3; ++t) {
      new_tokens_[t].resize(t == 1 ? 5 : 200);
      for (Token& token : new_tokens_[t]) token = static_cast<Token>(random() % 256);
    }
  }

  /// A dialogue under a policy, of new_tokens_ and its own answers. `ready`: a fork of each turn before its answer.
  void Play(Session session, std::vector<Session>* ready, std::vector<std::vector<Token>>* answers) const {
    std::vector<Token> prompt;
    SamplingParams params;
    params.max_tokens = 9;
    params.ignore_end_of_text = true;
    for (const std::vector<Token>& turn : new_tokens_) {
      prompt.insert(prompt.end(), turn.begin(), turn.end());
      ASSERT_TRUE(session.Sync(prompt).ok());
      ready->push_back(session.Fork());
      ASSERT_TRUE(session.Generate(params).ok());
      const auto held = session.tokens();
      answers->emplace_back(held.begin() + static_cast<ptrdiff_t>(prompt.size()), held.end());
      prompt.assign(held.begin(), held.end());
    }
  }

  Session NewSession(const char* policy) const { return engine_->NewSession(*Policy::Parse(policy)); }

  DenseDialogue Dense() const {
    std::vector<Session> ready;
    std::vector<std::vector<Token>> answers;
    Play(NewSession("dense"), &ready, &answers);
    auto dense = DenseDialogue::Create(dir_.path().string(), engine_->model().n_vocab);
    EXPECT_TRUE(dense.ok());
    for (size_t t = 0; t < ready.size(); ++t) {
      EXPECT_TRUE(dense->AddTurn(std::move(ready[t]), answers[t], references_[t], {}).ok());
    }
    return std::move(*dense);
  }

  /// own_history: the policy has played the dialogue before; else it is led through all of the dense one.
  std::vector<AnswerFidelity> Measure(DenseDialogue& dense, const char* policy, bool own_history) const {
    std::vector<Session> ready;
    std::vector<std::vector<Token>> answers;
    if (own_history) Play(NewSession(policy), &ready, &answers);
    while (ready.size() < 3) ready.push_back(NewSession(policy));
    auto fidelity = MeasureFidelity(dense, NewSession(policy), std::move(ready), {});
    EXPECT_TRUE(fidelity.ok()) << fidelity.status().message();
    return fidelity.ok() ? *fidelity : std::vector<AnswerFidelity>(3);
  }

  TempDir dir_;
  std::shared_ptr<Engine> engine_;
  std::vector<Token> new_tokens_[3];
  std::vector<std::vector<Token>> references_ = {{5, 6, 7}, {}, {9}};
};

TEST_F(AnswerFidelityTest, DenseIsEqualToItself) {
  DenseDialogue dense = Dense();
  for (const bool own_history : {true, false}) {
    const std::vector<AnswerFidelity> fidelity = Measure(dense, "dense", own_history);
    ASSERT_EQ(fidelity.size(), 3u);
    for (const AnswerFidelity& turn : fidelity) {
      EXPECT_EQ(turn.answer.kl, 0);
      EXPECT_EQ(turn.answer.top1_agreement, 1);
      if (!turn.reference) continue;
      EXPECT_EQ(turn.reference->kl, 0);
      EXPECT_EQ(turn.reference->top1_agreement, 1);
    }
  }
}

TEST_F(AnswerFidelityTest, ASparsePolicyDiffersAndItsOwnHistoryDoesNotMatter) {
  DenseDialogue dense = Dense();
  const char* const policy = "paper:alpha=0.5,min_keys=16,budget=32";
  const std::vector<AnswerFidelity> fidelity = Measure(dense, policy, true);
  const std::vector<AnswerFidelity> led = Measure(dense, policy, false);
  for (size_t t = 0; t < 3; ++t) {
    EXPECT_GT(fidelity[t].answer.kl, 0) << t;
    EXPECT_EQ(fidelity[t].answer.kl, led[t].answer.kl) << t;
    EXPECT_EQ(fidelity[t].answer.nll, led[t].answer.nll) << t;
    EXPECT_EQ(fidelity[t].reference.has_value(), t != 1) << t;
    if (!fidelity[t].reference) continue;
    EXPECT_GT(fidelity[t].reference->kl, 0) << t;
    EXPECT_EQ(fidelity[t].reference->kl, led[t].reference->kl) << t;
    EXPECT_EQ(fidelity[t].reference->nll, led[t].reference->nll) << t;
  }
}

TEST_F(AnswerFidelityTest, NllIsThatOfTheModel) {
  DenseDialogue dense = Dense();
  const std::vector<AnswerFidelity> fidelity = Measure(dense, "dense", false);
  EXPECT_FALSE(fidelity[1].reference.has_value());
  // By hand: one prompt, and the text's tokens one at a time.
  const auto nll_of = [&](const std::vector<Token>& text) {
    Session session = NewSession("dense");
    std::vector<Token> tokens = dense.turns()[0].prompt;
    double nll = 0;
    for (const Token token : text) {
      EXPECT_TRUE(session.Sync(tokens).ok());
      nll += NegativeLogLikelihood(session.logits(), token);
      tokens.push_back(token);
    }
    return nll / static_cast<double>(text.size());
  };
  EXPECT_NEAR(*fidelity[0].reference->nll, nll_of(references_[0]), 1e-6);
  EXPECT_NEAR(*fidelity[0].answer.nll, nll_of(dense.turns()[0].answer), 1e-6);
}

TEST_F(AnswerFidelityTest, IsOverTheTextsRows) {
  DenseDialogue dense = Dense();
  const char* const policy = "paper:alpha=0.5,min_keys=16,budget=32";
  const std::vector<AnswerFidelity> fidelity = Measure(dense, policy, false);
  // By hand: both led through the prompt and the reference, and its four rows.
  std::vector<std::vector<float>> rows[2];
  for (const bool is_dense : {true, false}) {
    Session session = NewSession(is_dense ? "dense" : policy);
    auto& own = rows[is_dense ? 0 : 1];
    ASSERT_TRUE(session.Sync(dense.turns()[0].prompt).ok());
    const auto take = [&](int64_t, std::span<const float> row) { own.emplace_back(row.begin(), row.end()); };
    ASSERT_TRUE(session.Replay(references_[0], {}, take).ok());
    take(0, session.logits());
    ASSERT_EQ(own.size(), 4u);
  }
  double kl = 0;
  for (size_t i = 0; i < 4; ++i) kl += KlDivergence(rows[0][i], rows[1][i]);
  EXPECT_NEAR(fidelity[0].reference->kl, kl / 4, 1e-6);
}

TEST_F(AnswerFidelityTest, CancelIsHeeded) {
  DenseDialogue dense = Dense();
  std::atomic<bool> cancel{true};
  RunControl control;
  control.cancel = &cancel;
  std::vector<Session> ready;
  while (ready.size() < 3) ready.push_back(NewSession("dense"));
  const auto fidelity = MeasureFidelity(dense, NewSession("dense"), std::move(ready), control);
  EXPECT_EQ(fidelity.status().code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace loopserve::bench
