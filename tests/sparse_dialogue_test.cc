// Sparse policies through the public API on a tiny model: where nothing may be left out they equal dense attention,
// where something is left out the figures say so, and the same request gives the same answer.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>

#include "loopserve/engine.h"
#include "tests/support/reference_model.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

class SparseDialogueTest : public testing::TestWithParam<TinyFamily> {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::path(testing::TempDir()) / ("sparse_" + std::to_string(getpid()) + ".gguf")).string();
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

  Session Open(const char* spec) {
    auto policy = Policy::Parse(spec);
    EXPECT_TRUE(policy.ok()) << policy.status().message();
    return engine_->NewSession(*policy);
  }

  static std::vector<Token> Tokens(int n, unsigned seed = 1) {
    std::mt19937 random(seed);
    std::vector<Token> tokens(static_cast<size_t>(n));
    for (Token& token : tokens) token = static_cast<Token>(random() % 256);
    return tokens;
  }

  static SyncStats MustSync(Session& session, std::span<const Token> tokens, bool measure = false) {
    RunControl control;
    control.measure_quality = measure;
    auto stats = session.Sync(tokens, control);
    EXPECT_TRUE(stats.ok()) << stats.status().message();
    return stats.ok() ? *stats : SyncStats{};
  }

  static GenerationStats MustGenerate(Session& session, int n, bool measure = false) {
    SamplingParams params;
    params.max_tokens = n;
    params.ignore_end_of_text = true;
    RunControl control;
    control.measure_quality = measure;
    auto stats = session.Generate(params, {}, control);
    EXPECT_TRUE(stats.ok()) << stats.status().message();
    return stats.ok() ? *stats : GenerationStats{};
  }

  static std::vector<Token> Held(const Session& session) { return {session.tokens().begin(), session.tokens().end()}; }

  static double MeanKl(std::span<const float> a, std::span<const float> b) {
    return CompareLogits(a, b, static_cast<int>(a.size())).mean_kl;
  }

  std::string path_;
  std::shared_ptr<Engine> engine_;
};

TEST_P(SparseDialogueTest, NothingLeftOutIsDense) {
  const std::vector<Token> tokens = Tokens(900);
  Session dense = Open("dense");
  MustSync(dense, tokens);
  const std::vector<float> logits(dense.logits().begin(), dense.logits().end());
  MustGenerate(dense, 40);
  for (const char* spec : {"loopserve:alpha=1,budget=0",
                           "paper:alpha=1,budget=0",
                           "loopserve:alpha=1,budget=5000,decode_min_keys=0",
                           "loopserve:min_keys=2000,budget=0",
                           "minference:slashes=900",
                           "flexprefill:gamma=1",
                           "flexprefill:min_budget=900",
                           "xattention:threshold=1",
                           "xattention:min_keys=2000",
                           "snapkv:budget=900",
                           "pyramidkv:budget=900",
                           "adakv:budget=900",
                           "h2o:budget=900",
                           "streaming:budget=900",
                           "snapkv:budget=940,when=every_turn,observe=output",
                           "h2o:budget=900,when=every_turn",
                           "a_shape:reference=0",
                           "a_shape:min_keys=2000",
                           "tri_shape:last=900",
                           "quest",
                           "quest:budget=64,dense_layers=99",
                           "quest:budget=64,decode_min_keys=2000"}) {
    SCOPED_TRACE(spec);
    Session sparse = Open(spec);
    const SyncStats stats = MustSync(sparse, tokens, true);
    EXPECT_EQ(stats.prefill_density, 1.0);
    EXPECT_EQ(stats.coverage_heldout, std::nullopt);
    EXPECT_TRUE(std::ranges::equal(logits, sparse.logits())) << "bit for bit";
    EXPECT_EQ(MustGenerate(sparse, 40).decode_kv_fraction, 1.0);
    EXPECT_EQ(Held(sparse), Held(dense));
  }
}

// Nearly everything is chosen: the result comes out of the sparse kernels and is dense up to the last digits.
TEST_P(SparseDialogueTest, NearlyEverythingIsNearlyDense) {
  const std::vector<Token> tokens = Tokens(1500);
  Session dense = Open("dense");
  MustSync(dense, tokens);
  for (const char* spec : {"loopserve:alpha=0.999999999,min_keys=0", "paper:alpha=0.9999999,rows=1400",
                           "minference:columns=1500,slashes=1400", "flexprefill:gamma=0.9999999,tau=0",
                           "xattention:threshold=0.9999999,stride=16", "xattention:threshold=0.9999999,block=64",
                           "a_shape:local=1371,reference=0", "tri_shape:last=3,local=1365,reference=0"}) {
    SCOPED_TRACE(spec);
    Session sparse = Open(spec);
    const SyncStats stats = MustSync(sparse, tokens, true);
    EXPECT_GT(stats.prefill_density, 0.9);
    ASSERT_TRUE(stats.coverage_heldout.has_value());
    EXPECT_GT(*stats.coverage_heldout, 0.999);
    EXPECT_LT(MeanKl(dense.logits(), sparse.logits()), 1e-4);
  }
}

TEST_P(SparseDialogueTest, FiguresSayWhatWasLeftOut) {
  const std::vector<Token> tokens = Tokens(2000);
  for (const char* spec :
       {"loopserve:alpha=0.6,min_keys=0", "paper:alpha=0.6", "minference:columns=100,slashes=110",
        "flexprefill:gamma=0.4,min_budget=128", "flexprefill:gamma=0.4,tau=1,min_budget=128",
        "xattention:threshold=0.6", "xattention:threshold=0.5,stride=8,block=64", "a_shape", "tri_shape"}) {
    SCOPED_TRACE(spec);
    Session sparse = Open(spec);
    const SyncStats stats = MustSync(sparse, tokens, true);
    EXPECT_LT(stats.prefill_density, 0.95);
    EXPECT_GT(stats.prefill_density, 0.2);
    ASSERT_TRUE(stats.coverage_heldout && stats.output_error && stats.output_error_p90);
    EXPECT_GT(*stats.coverage_heldout, 0.4);
    EXPECT_LT(*stats.coverage_heldout, 1.0);
    EXPECT_GT(*stats.output_error, 0.0);
    EXPECT_GE(*stats.output_error_p90, *stats.output_error * 0.5);
    ASSERT_TRUE(stats.floor_density && stats.floor_error);
    EXPECT_GT(*stats.floor_density, 0.0);
    EXPECT_LT(*stats.floor_density, 1.0);
    EXPECT_GT(*stats.floor_error, 0.0);
  }
}

TEST_P(SparseDialogueTest, TheSameRequestGivesTheSameAnswer) {
  const std::vector<Token> tokens = Tokens(1200);
  for (const char* spec :
       {"loopserve:alpha=0.8,min_keys=0,budget=200,decode_min_keys=0,queries=3", "minference:columns=100,slashes=200",
        "flexprefill:gamma=0.5,min_budget=128", "xattention:threshold=0.5,budget=200,interval=5,queries=3",
        "snapkv:budget=100,when=every_turn", "pyramidkv:budget=100", "adakv:budget=100,observe=output",
        "h2o:budget=100,when=every_turn", "streaming:budget=100", "tri_shape:last=30,budget=200"}) {
    SCOPED_TRACE(spec);
    std::set<std::vector<Token>> answers;
    for (int i = 0; i < 3; ++i) {
      Session session = Open(spec);
      MustSync(session, std::span(tokens).first(700));
      MustSync(session, tokens);
      MustGenerate(session, 50);
      answers.insert(Held(session));
    }
    EXPECT_EQ(answers.size(), 1u);
  }
}

TEST_P(SparseDialogueTest, ChoicesAreCounted) {
  constexpr int kAnswerTokens = 60, kSteps = kAnswerTokens - 1, kInterval = 7;
  const std::vector<Token> tokens = Tokens(1000);
  const auto count = [&](const char* spec) {
    Session session = Open(spec);
    MustSync(session, tokens);
    return MustGenerate(session, kAnswerTokens).reselections;
  };
  EXPECT_EQ(count("dense"), 0);
  EXPECT_EQ(count("snapkv:budget=128"), 0) << "it chose at the end of the prompt";
  const int64_t by_token = count("loopserve:alpha=1,budget=128,decode_min_keys=0");
  const int64_t n_layers = by_token / kSteps;  // without those that have a window
  EXPECT_GE(n_layers, 1);
  EXPECT_EQ(by_token, n_layers * kSteps) << "every layer for every token";
  const int64_t by_interval = count("paper:alpha=1,budget=128,interval=7");
  EXPECT_GE(by_interval, n_layers * (kSteps / kInterval));
  EXPECT_LE(by_interval, n_layers * (kSteps / kInterval + 1));
}

TEST_P(SparseDialogueTest, WorkingSetsReadTheirBudgetAndAnswersGoOn) {
  const std::vector<Token> tokens = Tokens(1000);
  for (const char* spec :
       {"paper:alpha=1,budget=128,interval=7,queries=5", "loopserve:alpha=1,budget=128,decode_min_keys=0",
        "loopserve:alpha=1,budget=128,decode_min_keys=0,per_query_head=1", "snapkv:budget=128",
        "pyramidkv:budget=128,when=every_turn", "adakv:budget=128", "h2o:budget=128,when=every_turn",
        "streaming:budget=128", "quest:budget=128,dense_layers=1",
        "quest:budget=128,dense_layers=0,per_query_head=1"}) {
    SCOPED_TRACE(spec);
    Session session = Open(spec);
    MustSync(session, tokens);
    const GenerationStats first = MustGenerate(session, 60, true);
    ASSERT_TRUE(first.decode_kv_fraction && first.decode_coverage);
    EXPECT_LT(*first.decode_kv_fraction, 0.75);
    EXPECT_GE(*first.decode_kv_fraction, 0.11);
    EXPECT_GT(*first.decode_coverage, 0.05);
    EXPECT_LT(*first.decode_coverage, 1.0);
    // The history is all there: the next turn computes its own tokens only, and dense attention over it is possible
    // again.
    std::vector<Token> next = Held(session);
    const auto held = static_cast<int64_t>(next.size());
    for (const Token token : Tokens(30, 5)) next.push_back(token);
    const SyncStats stats = MustSync(session, next);
    EXPECT_EQ(stats.cached_tokens, held);
    EXPECT_EQ(stats.new_tokens, 30);
    EXPECT_EQ(MustGenerate(session, 20).output_tokens, 20);
  }
}

TEST_P(SparseDialogueTest, ForksAnswerAsTheOriginalWould) {
  const std::vector<Token> tokens = Tokens(900);
  for (const char* spec : {"loopserve:alpha=0.8,min_keys=0,budget=100,decode_min_keys=0,queries=4", "snapkv:budget=100",
                           "adakv:budget=100,observe=output,window=9", "h2o:budget=100",
                           "quest:budget=100,dense_layers=1", "tri_shape:last=20"}) {
    SCOPED_TRACE(spec);
    Session session = Open(spec);
    MustSync(session, tokens);
    Session fork = session.Fork();
    MustGenerate(session, 30);
    MustGenerate(fork, 30);
    EXPECT_EQ(Held(session), Held(fork));
  }
}

TEST_P(SparseDialogueTest, WhatWasEvictedIsNotComputedInLaterTurns) {
  for (const char* spec : {"snapkv:budget=100", "pyramidkv:budget=100,when=every_turn", "adakv:budget=100",
                           "h2o:budget=100,when=every_turn", "streaming:budget=100"}) {
    for (const int n_new : {3, 40, 200}) {  // computed by the decode graph, and by prefill
      SCOPED_TRACE(std::string(spec) + " " + std::to_string(n_new));
      Session session = Open(spec);
      EXPECT_EQ(MustSync(session, Tokens(900)).prefill_density, 1.0) << "the first prefill is dense";
      const SyncStats stats = MustSync(session, Tokens(900 + n_new));
      EXPECT_EQ(stats.new_tokens, n_new);
      // Gemma's sliding layers, seven of eight, count as dense.
      EXPECT_LT(*stats.prefill_density, GetParam() == TinyFamily::kLlama ? 0.35 : 0.95);
      EXPECT_GT(*stats.prefill_density, 0.09);
      EXPECT_LT(*MustGenerate(session, 10, true).decode_coverage, 1.0);
    }
  }
}

TEST_P(SparseDialogueTest, AnEvictedDialoguesAnswerCanBeWrittenAgain) {
  const std::vector<Token> prompt = Tokens(600);
  for (const char* spec : {"snapkv:budget=64", "pyramidkv:budget=64,when=every_turn", "adakv:budget=64,observe=output",
                           "h2o:budget=64", "streaming:budget=64"}) {
    SCOPED_TRACE(spec);
    Session session = Open(spec);
    MustSync(session, prompt);
    MustGenerate(session, 40);
    const std::vector<Token> first = Held(session);
    EXPECT_EQ(MustSync(session, prompt).new_tokens, 1);
    MustGenerate(session, 40);
    EXPECT_EQ(Held(session), first);
  }
}

TEST_P(SparseDialogueTest, ShortTurnsAndShortContextsWork) {
  for (const char* spec : {"loopserve:alpha=0.5,min_keys=0,budget=1,decode_min_keys=0,queries=1",
                           "paper:budget=8",
                           "paper:budget=2,interval=4096,queries=64",
                           "loopserve:budget=2,decode_min_keys=0,queries=64,min_keys=0,recent=300",
                           "minference:columns=30,slashes=50,budget=4",
                           "flexprefill:gamma=0.3,min_budget=1",
                           "flexprefill:gamma=0.3,tau=1,min_budget=1",
                           "xattention:threshold=0.3,stride=4,block=64",
                           "snapkv:budget=2,window=1,when=every_turn",
                           "snapkv:budget=20,window=16,observe=output",
                           "pyramidkv:budget=8,window=5,beta=1000,when=every_turn",
                           "h2o:budget=2,when=every_turn",
                           "adakv:budget=6,window=4,alpha=0,when=every_turn,observe=output",
                           "adakv:budget=33",
                           "streaming:budget=5,when=every_turn",
                           "streaming:budget=2,sinks=1",
                           "a_shape:sinks=0,local=1",
                           "a_shape:budget=4",
                           "tri_shape:last=1",
                           "tri_shape:local=5",
                           "quest:budget=1,dense_layers=0"}) {
    SCOPED_TRACE(spec);
    Session session = Open(spec);
    std::vector<Token> tokens;
    for (const int length : {1, 2, 10, 11, 60, 110, 111, 300, 301, 420}) {
      tokens = Tokens(length);
      MustSync(session, tokens);
      EXPECT_EQ(MustGenerate(session, 3).output_tokens, 3);
    }
  }
}

TEST_P(SparseDialogueTest, ReplayComputesWhatGenerateComputed) {
  for (const char* spec :
       {"dense", "paper:rows=16,budget=24,interval=4", "loopserve:min_keys=0,budget=24,decode_min_keys=0",
        "snapkv:budget=64", "adakv:budget=40,window=10,observe=output", "h2o:budget=24", "streaming:budget=24",
        "quest:budget=48,dense_layers=1", "a_shape:budget=24"}) {
    SCOPED_TRACE(spec);
    const std::vector<Token> prompt = Tokens(200);
    Session generated = Open(spec);
    MustSync(generated, prompt);
    Session replayed = generated.Fork();
    MustGenerate(generated, 24);
    const std::vector<Token> all(generated.tokens().begin(), generated.tokens().end());
    const std::vector<Token> answer(all.begin() + 200, all.end());
    ASSERT_GE(answer.size(), 20u);
    std::vector<int64_t> positions;
    std::vector<Token> drawn;
    RunControl control;
    control.measure_quality = true;
    const auto stats = replayed.Replay(answer, control, [&](int64_t position, std::span<const float> logits) {
      positions.push_back(position);
      drawn.push_back(static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    });
    ASSERT_TRUE(stats.ok()) << stats.status().message();
    EXPECT_EQ(drawn, answer) << "greedy: each token is the largest logit that Replay shows";
    EXPECT_EQ(positions.front(), 200);
    EXPECT_EQ(positions.back(), 199 + static_cast<int64_t>(answer.size()));
    EXPECT_EQ(stats->itl_ms.size(), answer.size() - 1);
    EXPECT_EQ(std::vector<Token>(replayed.tokens().begin(), replayed.tokens().end()), all);
    EXPECT_EQ(stats->decode_coverage.has_value(), std::string(spec) != "dense");
  }
  Session session = Open("dense");
  EXPECT_EQ(session.Replay(Tokens(2)).status().code(), StatusCode::kInvalidArgument) << "nothing was synced";
  MustSync(session, Tokens(10));
  EXPECT_EQ(session.Replay(std::vector<Token>{-1}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(session.Replay(Tokens(5000)).status().code(), StatusCode::kContextLength);
  EXPECT_EQ(session.tokens().size(), 10u);
}

TEST_P(SparseDialogueTest, ShortContextsAreReadInFull) {
  Session sparse = Open("loopserve:budget=32,decode_min_keys=300");
  MustSync(sparse, Tokens(299));
  EXPECT_EQ(MustGenerate(sparse, 8).decode_kv_fraction, 1.0);
  Session longer = Open("loopserve:budget=32,decode_min_keys=300");
  MustSync(longer, Tokens(300));
  EXPECT_LT(*MustGenerate(longer, 8).decode_kv_fraction, 1.0);
}

INSTANTIATE_TEST_SUITE_P(Families, SparseDialogueTest, testing::Values(TinyFamily::kLlama, TinyFamily::kGemma3),
                         [](const auto& family) { return family.param == TinyFamily::kLlama ? "Llama" : "Gemma3"; });

}  // namespace
}  // namespace loopserve
