// One prefill for several policies: a fork under a policy is what a session of that policy would have been, bit for
// bit; where it would not be, it is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "loopserve/engine.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

class SharedPrefillTest : public testing::TestWithParam<TinyFamily> {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::path(testing::TempDir()) / ("shared_" + std::to_string(getpid()) + ".gguf")).string();
    TinyGgufOptions options = TinyModel(GetParam());
    options.context_tokens = 4096;
    ASSERT_TRUE(WriteTinyGguf(options, path_).ok());
    EngineOptions engine;
    engine.model_path = path_;
    engine.threads = 2;
    auto opened = Engine::Open(engine);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    engine_ = *opened;
  }
  void TearDown() override { std::filesystem::remove(path_); }

  static Policy Parse(const std::string& spec) {
    auto policy = Policy::Parse(spec);
    EXPECT_TRUE(policy.ok()) << policy.status().message();
    return policy.ok() ? *policy : Policy();
  }
  static std::vector<Policy> ParseAll(const std::vector<std::string>& specs) {
    std::vector<Policy> policies;
    for (const std::string& spec : specs) policies.push_back(Parse(spec));
    return policies;
  }

  Session OpenShared(const std::vector<std::string>& specs) {
    auto session = engine_->NewSharedPrefill(ParseAll(specs));
    EXPECT_TRUE(session.ok()) << session.status().message();
    return session.ok() ? std::move(*session) : engine_->NewSession();
  }

  static std::vector<Token> Tokens(int n, unsigned seed = 1) {
    std::mt19937 random(seed);
    std::vector<Token> tokens(static_cast<size_t>(n));
    for (Token& token : tokens) token = static_cast<Token>(random() % 256);
    return tokens;
  }

  static void MustSync(Session& session, std::span<const Token> tokens) {
    const auto stats = session.Sync(tokens);
    EXPECT_TRUE(stats.ok()) << stats.status().message();
  }

  static GenerationStats MustGenerate(Session& session) {
    SamplingParams params;
    params.max_tokens = 40;
    params.ignore_end_of_text = true;
    auto stats = session.Generate(params);
    EXPECT_TRUE(stats.ok()) << stats.status().message();
    return stats.ok() ? *stats : GenerationStats{};
  }

  /// Both answer, read on and answer again.
  static void ExpectSameDialogue(Session& own, Session& fork) {
    for (unsigned turn = 2; turn <= 3; ++turn) {
      EXPECT_TRUE(std::ranges::equal(own.logits(), fork.logits())) << "before turn " << turn;
      const GenerationStats a = MustGenerate(own), b = MustGenerate(fork);
      EXPECT_EQ(a.text, b.text);
      EXPECT_EQ(a.decode_kv_fraction, b.decode_kv_fraction);
      ASSERT_TRUE(std::ranges::equal(own.tokens(), fork.tokens()));
      std::vector<Token> next(own.tokens().begin(), own.tokens().end());
      for (const Token token : Tokens(150, turn)) next.push_back(token);
      MustSync(own, next);
      MustSync(fork, next);
    }
    EXPECT_TRUE(std::ranges::equal(own.logits(), fork.logits()));
  }

  std::string path_;
  std::shared_ptr<Engine> engine_;
};

TEST_P(SharedPrefillTest, AForkIsWhatASessionOfThePolicyWouldBe) {
  const std::vector<std::string> groups[] = {
      {"dense", "full", "quest:budget=64,dense_layers=1", "quest:budget=64,dense_layers=0,per_query_head=1"},
      {"paper:alpha=0.8,rows=16,budget=64,queries=4", "paper:alpha=0.8,rows=16,budget=0",
       "paper:alpha=0.8,rows=16,budget=96,queries=40,interval=3"},
      {"loopserve:alpha=0.8,min_keys=200,budget=64,decode_min_keys=200,recent=8",
       "loopserve:alpha=0.8,min_keys=200,budget=128,decode_min_keys=200,recent=8,queries=32"},
      {"xattention:threshold=0.8,budget=64", "xattention:threshold=0.8"},
      {"tri_shape:last=20", "tri_shape:last=20,budget=64"},
      {"dense", "snapkv:budget=64,window=16", "snapkv:budget=64,window=16,when=every_turn",
       "adakv:budget=64,observe=output", "pyramidkv:budget=64", "streaming:budget=64"},
  };
  for (const int n : {5, 9, 600}) {
    const std::vector<Token> prompt = Tokens(n);
    for (const auto& group : groups) {
      Session shared = OpenShared(group);
      MustSync(shared, prompt);
      for (const std::string& spec : group) {
        SCOPED_TRACE(spec + ", " + std::to_string(n) + " tokens");
        auto fork = shared.Fork(Parse(spec));
        ASSERT_TRUE(fork.ok()) << fork.status().message();
        Session own = engine_->NewSession(Parse(spec));
        MustSync(own, prompt);
        ExpectSameDialogue(own, *fork);
      }
      EXPECT_TRUE(std::ranges::equal(shared.tokens(), prompt)) << "forks do not change what they were forked from";
    }
  }
}

TEST_P(SharedPrefillTest, ForksReallyDecodeByTheirOwnPolicy) {
  const std::vector<std::string> specs = {"paper:alpha=0.8,rows=16,budget=64", "paper:alpha=0.8,rows=16,budget=0"};
  Session shared = OpenShared(specs);
  MustSync(shared, Tokens(600));
  auto sparse = shared.Fork(Parse(specs[0]));
  auto full = shared.Fork(Parse(specs[1]));
  ASSERT_TRUE(sparse.ok() && full.ok());
  EXPECT_LT(*MustGenerate(*sparse).decode_kv_fraction, 0.9);
  EXPECT_EQ(MustGenerate(*full).decode_kv_fraction, 1.0);
  EXPECT_EQ(MustGenerate(shared).decode_kv_fraction, 1.0) << "the shared session itself reads everything";
}

TEST_P(SharedPrefillTest, WhatWouldNotBeExactIsRefused) {
  const auto refusal = [](const Session& session, const std::string& spec) {
    const auto fork = session.Fork(Parse(spec));
    if (fork.ok()) return std::string();
    EXPECT_EQ(fork.status().code(), StatusCode::kInvalidArgument);
    return fork.status().message();
  };
  Session dense = engine_->NewSession();
  MustSync(dense, Tokens(300));
  EXPECT_EQ(refusal(dense, "dense"), "");
  EXPECT_THAT(refusal(dense, "paper"), HasSubstr("its prefill differs from that of dense"));
  Session paper = engine_->NewSession(Parse("paper:budget=0"));
  MustSync(paper, Tokens(300));
  EXPECT_THAT(refusal(paper, "paper:alpha=0.9"), HasSubstr("its prefill differs"));
  EXPECT_THAT(refusal(paper, "paper"), HasSubstr("was not opened for it"));
  EXPECT_EQ(refusal(paper, "paper:budget=0"), "");
  Session sparse = engine_->NewSession(Parse("paper"));
  MustSync(sparse, Tokens(300));
  EXPECT_THAT(refusal(sparse, "paper:budget=0"), HasSubstr("own policy does not read everything"));

  // Needs sums over all rows of the prefill, which the shared one does not note.
  EXPECT_THAT(refusal(dense, "h2o"), HasSubstr("its prefill differs"));

  // More than one prompt, an answer, a rewound history.
  Session turns = engine_->NewSession();
  MustSync(turns, Tokens(100));
  EXPECT_EQ(refusal(turns, "dense"), "");
  MustSync(turns, Tokens(300));
  EXPECT_THAT(refusal(turns, "dense"), HasSubstr("more than one prompt"));
  MustSync(turns, Tokens(100));
  EXPECT_THAT(refusal(turns, "dense"), HasSubstr("more than one prompt"));
  MustSync(turns, Tokens(200, 7));
  EXPECT_EQ(refusal(turns, "dense"), "") << "nothing of the first history is left";
  MustGenerate(turns);
  EXPECT_THAT(refusal(turns, "dense"), HasSubstr("or an answer"));

  EXPECT_EQ(engine_->NewSharedPrefill({}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(engine_->NewSharedPrefill(ParseAll({"dense", "paper"})).status().message(),
              HasSubstr("the prefills of dense and paper differ"));
}

INSTANTIATE_TEST_SUITE_P(Families, SharedPrefillTest, testing::Values(TinyFamily::kLlama, TinyFamily::kGemma3),
                         [](const auto& family) { return family.param == TinyFamily::kLlama ? "llama" : "gemma3"; });

}  // namespace
}  // namespace loopserve
