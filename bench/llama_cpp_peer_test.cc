#include "bench/peers/llama_cpp_peer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "bench/metrics.h"
#include "bench/peers/llama_cpp_engine.h"
#include "src/base/temp_dir.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve::bench {
namespace {

using Rows = std::vector<std::vector<float>>;

std::vector<Token> SomeTokens(int count, int n_vocab) {
  std::vector<Token> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * 37 + i / 5 + 11) % n_vocab);
  return tokens;
}

class LlamaCppPeerTest : public testing::Test {
 protected:
  std::string Model(TinyFamily family, ggml_type type = GGML_TYPE_F32) {
    TinyGgufOptions options = TinyModel(family);
    options.weight_type = type;
    std::string path = (folder_.path() / "model.gguf").string();
    EXPECT_TRUE(WriteTinyGguf(options, path).ok());
    return path;
  }

  std::unique_ptr<LlamaCppPeer> Open(const std::string& path, bool flash_attention = true, int batch_rows = 64) {
    auto peer = LlamaCppPeer::Open({.model_path = path,
                                    .threads = 2,
                                    .context_tokens = 512,
                                    .flash_attention = flash_attention,
                                    .batch_rows = batch_rows});
    EXPECT_TRUE(peer.ok()) << peer.status().message();
    return std::move(*peer);
  }

  static Rows AllRows(LlamaCppPeer& peer, std::span<const Token> tokens) {
    Rows rows;
    peer.Clear();
    EXPECT_TRUE(peer.Sync(tokens,
                          [&](int64_t position, std::span<const float> row) {
                            EXPECT_EQ(position, static_cast<int64_t>(rows.size()));
                            rows.emplace_back(row.begin(), row.end());
                          })
                    .ok());
    return rows;
  }

  static double MeanKl(const Rows& a, const Rows& b) {
    EXPECT_EQ(a.size(), b.size());
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += KlDivergence(a[i], b[i]);
    return sum / static_cast<double>(a.size());
  }

  TempDir folder_;
};

TEST_F(LlamaCppPeerTest, RowsDoNotDependOnBatchesAndFlashAttention) {
  const std::string path = Model(TinyFamily::kLlama);
  auto peer = Open(path);
  const std::vector<Token> tokens = SomeTokens(150, peer->n_vocab());
  const Rows rows = AllRows(*peer, tokens);
  ASSERT_EQ(rows.size(), tokens.size());
  EXPECT_LT(MeanKl(rows, AllRows(*Open(path, true, 512), tokens)), 1e-5);
  EXPECT_LT(MeanKl(rows, AllRows(*Open(path, false), tokens)), 1e-5);
}

TEST_F(LlamaCppPeerTest, SyncExtendsAndRewinds) {
  auto peer = Open(Model(TinyFamily::kLlama));
  std::vector<Token> tokens = SomeTokens(40, peer->n_vocab());
  int computed = 0;
  const auto count = [&](int64_t, std::span<const float>) { ++computed; };
  ASSERT_TRUE(peer->Sync(std::span(tokens).first(30), count).ok());
  EXPECT_EQ(computed, 30);
  ASSERT_TRUE(peer->Sync(tokens, count).ok());
  EXPECT_EQ(computed, 40);
  tokens[35] = (tokens[35] + 1) % peer->n_vocab();
  ASSERT_TRUE(peer->Sync(tokens, count).ok());
  EXPECT_EQ(computed, 45);
}

TEST_F(LlamaCppPeerTest, GreedyContinuationFollowsTheLogits) {
  auto peer = Open(Model(TinyFamily::kQwen2));
  std::vector<Token> tokens = SomeTokens(20, peer->n_vocab());
  ASSERT_TRUE(peer->Sync(tokens).ok());
  const auto generation = peer->Generate(5);
  ASSERT_TRUE(generation.ok()) << generation.status().message();
  ASSERT_EQ(generation->tokens.size(), 5u);
  for (const Token token : generation->tokens) {
    const Rows rows = AllRows(*Open((folder_.path() / "model.gguf").string()), tokens);
    EXPECT_EQ(token, std::max_element(rows.back().begin(), rows.back().end()) - rows.back().begin());
    tokens.push_back(token);
  }
}

TEST_F(LlamaCppPeerTest, EveryRunOfAMeasuredEngineStartsFromTheContext) {
  for (const TinyFamily family : {TinyFamily::kLlama, TinyFamily::kGemma3}) {
    EngineSpec spec{.engine = "llama.cpp", .policy = "flash_attention", .model_path = Model(family), .threads = 2};
    spec.max_tokens = 300;
    auto engine = MakeLlamaCppEngine(spec);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    const std::vector<Token> prompt = SomeTokens(200, 200);
    ASSERT_TRUE((*engine)->Prepare({}).ok());
    const auto whole = (*engine)->Run(prompt, 8);
    ASSERT_TRUE(whole.ok()) << whole.status().message();
    ASSERT_TRUE((*engine)->Prepare(std::span(prompt).first(150)).ok());
    for (int round = 0; round < 3; ++round) {
      const auto figures = (*engine)->Run(prompt, 8);
      ASSERT_TRUE(figures.ok()) << figures.status().message();
      EXPECT_EQ(figures->output, whole->output);
      EXPECT_GT(figures->tpot_ms.value_or(0), 0);
    }
  }
}

TEST_F(LlamaCppPeerTest, DequantizedIsTheSameModelAndLeavesNothingBehind) {
  const std::string path = Model(TinyFamily::kLlama, GGML_TYPE_Q8_0);
  const std::filesystem::path scratch = folder_.path() / "scratch";
  const LlamaCppOptions options{.model_path = path, .threads = 2, .context_tokens = 512};
  auto exact = OpenDequantized(options, scratch);
  ASSERT_TRUE(exact.ok()) << exact.status().message();
  EXPECT_TRUE(std::filesystem::is_empty(scratch));
  const std::vector<Token> tokens = SomeTokens(100, (*exact)->n_vocab());
  LlamaCppOptions plain = options;
  plain.flash_attention = false;
  auto without_flash = OpenDequantized(plain, scratch);
  ASSERT_TRUE(without_flash.ok());
  const Rows rows = AllRows(**exact, tokens);
  const double own_noise = MeanKl(rows, AllRows(**without_flash, tokens));
  const double quantized_noise = MeanKl(rows, AllRows(*Open(path), tokens));
  EXPECT_LT(own_noise, 1e-5);
  EXPECT_GT(quantized_noise, own_noise) << "activations rounded to 8 bits must show";
  EXPECT_LT(quantized_noise, 1e-1) << "but it is the same model";
}

TEST_F(LlamaCppPeerTest, ErrorsAreValuesAndLeaveNothingBehind) {
  const std::string missing = (folder_.path() / "missing.gguf").string();
  EXPECT_EQ(LlamaCppPeer::Open({.model_path = missing}).status().code(), StatusCode::kUnsupported);
  const std::filesystem::path scratch = folder_.path() / "scratch";
  EXPECT_FALSE(OpenDequantized({.model_path = missing}, scratch).ok());
  EXPECT_TRUE(!std::filesystem::exists(scratch) || std::filesystem::is_empty(scratch));
  auto peer = Open(Model(TinyFamily::kLlama));
  EXPECT_EQ(peer->Sync(std::vector<Token>(1000, 1)).code(), StatusCode::kContextLength);
  EXPECT_EQ(peer->Sync({}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(peer->Sync(std::vector<Token>{-1}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(peer->Sync(std::vector<Token>{peer->n_vocab()}).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace loopserve::bench
