// Dialogues through the public API on a tiny model: what is reused, what is computed, and that both give the same.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <random>

#include "loopserve/engine.h"
#include "tests/support/reference_model.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

class DialogueTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    path_ = (std::filesystem::path(testing::TempDir()) / ("session_" + std::to_string(getpid()) + ".gguf")).string();
    TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
    options.context_tokens = 2048;
    ASSERT_TRUE(WriteTinyGguf(options, path_).ok());
  }
  static void TearDownTestSuite() { std::filesystem::remove(path_); }

  static std::shared_ptr<Engine> Open(LinearPath path = LinearPath::kF32, size_t kv_budget_bytes = 0) {
    EngineOptions options;
    options.model_path = path_;
    options.threads = 2;
    options.linear_path = path;
    options.kv_budget_bytes = kv_budget_bytes;
    auto engine = Engine::Open(options);
    if (!engine.ok() && path != LinearPath::kQuantized) return Open(LinearPath::kQuantized, kv_budget_bytes);
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    return engine.ok() ? *engine : nullptr;
  }

  static std::vector<Token> Tokens(int n, unsigned seed = 1) {
    std::mt19937 random(seed);
    std::vector<Token> tokens(static_cast<size_t>(n));
    for (Token& token : tokens) token = static_cast<Token>(random() % 256);
    return tokens;
  }

  static std::vector<float> Copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

  static SyncStats MustSync(Session& session, std::span<const Token> tokens) {
    auto stats = session.Sync(tokens);
    EXPECT_TRUE(stats.ok()) << stats.status().message();
    return stats.ok() ? *stats : SyncStats{};
  }

  /// f32 sums over the same terms in another order: differences of some units in the last place of the largest terms.
  static void ExpectSameLogits(std::span<const float> a, std::span<const float> b) {
    ASSERT_EQ(a.size(), b.size());
    const LogitsDifference difference = CompareLogits(a, b, static_cast<int>(a.size()));
    EXPECT_LE(difference.mean_kl, 1e-6);
    EXPECT_LE(difference.max_abs, 2e-2);
  }

  static std::string path_;
};
std::string DialogueTest::path_;

TEST_F(DialogueTest, LaterTurnComputesOnlyNewTokensAndEqualsFromScratch) {
  const auto engine = Open();
  const std::vector<Token> tokens = Tokens(700);
  for (const int first : {1, 5, 8, 9, 255, 256, 257, 500, 692, 699}) {
    SCOPED_TRACE(first);
    Session turns = engine->NewSession();
    MustSync(turns, std::span(tokens).first(static_cast<size_t>(first)));
    const SyncStats stats = MustSync(turns, tokens);
    EXPECT_EQ(stats.kind, SyncKind::kExtend);
    EXPECT_EQ(stats.cached_tokens, first);
    EXPECT_EQ(stats.new_tokens, 700 - first);
    Session scratch = engine->NewSession();
    MustSync(scratch, tokens);
    ExpectSameLogits(scratch.logits(), turns.logits());
  }
}

TEST_F(DialogueTest, ReplayIsBitForBit) {
  for (const LinearPath path : {LinearPath::kAuto, LinearPath::kQuantized, LinearPath::kInt8}) {
    const auto engine = Open(path);
    const std::vector<Token> tokens = Tokens(600);
    std::vector<std::vector<float>> logits;
    for (int replay = 0; replay < 3; ++replay) {
      Session session = engine->NewSession();
      for (const size_t end : {300u, 303u, 420u, 600u}) MustSync(session, std::span(tokens).first(end));
      logits.push_back(Copy(session.logits()));
    }
    EXPECT_EQ(logits[0], logits[1]);
    EXPECT_EQ(logits[0], logits[2]);
  }
}

TEST_F(DialogueTest, EditedHistoryIsReusedUpToTheFirstDifference) {
  const auto engine = Open();
  std::vector<Token> tokens = Tokens(400);
  Session session = engine->NewSession();
  MustSync(session, tokens);
  tokens[250] ^= 1;
  const SyncStats stats = MustSync(session, tokens);
  EXPECT_EQ(stats.kind, SyncKind::kRewind);
  EXPECT_EQ(stats.cached_tokens, 250);
  EXPECT_EQ(stats.new_tokens, 150);
  Session scratch = engine->NewSession();
  MustSync(scratch, tokens);
  ExpectSameLogits(scratch.logits(), session.logits());
  EXPECT_EQ(std::vector<Token>(session.tokens().begin(), session.tokens().end()), tokens);

  tokens[0] ^= 1;
  EXPECT_EQ(MustSync(session, tokens).kind, SyncKind::kRebuild);
}

TEST_F(DialogueTest, SyncToAPrefixAndToTheSameTokens) {
  const auto engine = Open();
  const std::vector<Token> tokens = Tokens(300);
  Session session = engine->NewSession();
  MustSync(session, tokens);
  EXPECT_EQ(MustSync(session, tokens).new_tokens, 0);
  const SyncStats shorter = MustSync(session, std::span(tokens).first(120));
  EXPECT_EQ(shorter.cached_tokens, 119);
  EXPECT_EQ(shorter.new_tokens, 1);
  Session scratch = engine->NewSession();
  MustSync(scratch, std::span(tokens).first(120));
  // One row through the decode graph against many through prefill: ggml's f32 products on both sides of this model.
  ExpectSameLogits(scratch.logits(), session.logits());
}

TEST_F(DialogueTest, ForksShareTheirPastAndNotTheirFuture) {
  const auto engine = Open();
  const std::vector<Token> past = Tokens(600);
  Session a = engine->NewSession();
  MustSync(a, past);
  Session b = a.Fork();
  EXPECT_EQ(a.exclusive_kv_bytes(), 0u);
  std::vector<Token> left = past, right = past;
  for (const Token t : Tokens(50, 2)) left.push_back(t);
  for (const Token t : Tokens(60, 3)) right.push_back(t);
  MustSync(a, left);
  MustSync(b, right);
  EXPECT_GT(a.exclusive_kv_bytes(), 0u);
  EXPECT_LT(a.exclusive_kv_bytes(), a.kv_bytes());
  for (auto& [session, tokens] : {std::pair<Session&, std::vector<Token>&>{a, left}, {b, right}}) {
    Session scratch = engine->NewSession();
    MustSync(scratch, tokens);
    ExpectSameLogits(scratch.logits(), session.logits());
  }
}

TEST_F(DialogueTest, GenerationIsDeterministicAndContinuesTheTimeline) {
  const auto engine = Open();
  const std::vector<Token> prompt = Tokens(200);
  SamplingParams params;
  params.max_tokens = 24;
  params.ignore_end_of_text = true;
  params.temperature = 0.8f;
  params.seed = 11;
  std::vector<std::string> texts;
  for (int replay = 0; replay < 2; ++replay) {
    Session session = engine->NewSession();
    MustSync(session, prompt);
    std::string streamed;
    const auto stats = session.Generate(params, [&](std::string_view text) {
      streamed += text;
      return true;
    });
    ASSERT_TRUE(stats.ok());
    EXPECT_EQ(stats->output_tokens, 24);
    EXPECT_EQ(stats->stop_reason, StopReason::kMaxTokens);
    EXPECT_EQ(stats->text, streamed);
    // The last token drawn was not needed as input: its KV is not there.
    EXPECT_EQ(session.tokens().size(), prompt.size() + 23);
    texts.push_back(stats->text);
  }
  EXPECT_EQ(texts[0], texts[1]);
}

TEST_F(DialogueTest, GenerationStopsForItsCallerAndAtTheContext) {
  const auto engine = Open();
  Session session = engine->NewSession();
  MustSync(session, Tokens(2045));
  SamplingParams params;
  params.ignore_end_of_text = true;
  auto stats = session.Generate(params);
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->stop_reason, StopReason::kContextFull);
  EXPECT_EQ(stats->output_tokens, 4);  // three that fit, and one that needs no place
  EXPECT_EQ(session.tokens().size(), 2048u);

  Session other = engine->NewSession();
  MustSync(other, Tokens(100));
  std::atomic<bool> cancel{true};
  stats = other.Generate(params, {}, {.cancel = &cancel});
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->stop_reason, StopReason::kCancelled);
  EXPECT_EQ(stats->output_tokens, 0);
}

TEST_F(DialogueTest, ErrorsLeaveTheSessionUsable) {
  const auto engine = Open();
  Session session = engine->NewSession();
  const std::vector<Token> tokens = Tokens(300);
  MustSync(session, std::span(tokens).first(100));
  EXPECT_EQ(session.Sync({}).status().code(), StatusCode::kInvalidArgument);
  const auto too_long = session.Sync(Tokens(2049));
  EXPECT_EQ(too_long.status().code(), StatusCode::kContextLength);
  EXPECT_NE(too_long.status().message().find("2049"), std::string::npos);
  EXPECT_NE(too_long.status().message().find("2048"), std::string::npos);
  for (const Token bad : {-1, engine->model().n_vocab, 1 << 30}) {
    std::vector<Token> hostile = tokens;
    hostile[150] = bad;
    EXPECT_EQ(session.Sync(hostile).status().code(), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(session.tokens().size(), 100u);
  std::atomic<bool> cancel{true};
  EXPECT_EQ(session.Sync(tokens, {.cancel = &cancel}).status().code(), StatusCode::kCancelled);
  EXPECT_EQ(session.tokens().size(), 100u);
  EXPECT_EQ(session.Generate({}).status().code(), StatusCode::kInvalidArgument) << "logits are unknown after a failure";
  EXPECT_EQ(MustSync(session, tokens).cached_tokens, 100);
  Session scratch = engine->NewSession();
  MustSync(scratch, tokens);
  ExpectSameLogits(scratch.logits(), session.logits());
}

TEST_F(DialogueTest, KvBudgetIsKeptAndGivenBack) {
  const auto probe = Open();
  const size_t block_bytes = probe->model().kv_bytes_per_token * 256;
  const auto engine = Open(LinearPath::kF32, 2 * block_bytes);
  Session a = engine->NewSession();
  MustSync(a, Tokens(512));
  {
    Session b = engine->NewSession();
    EXPECT_EQ(b.Sync(Tokens(10)).status().code(), StatusCode::kResourceExhausted);
  }
  a = engine->NewSession();
  Session b = engine->NewSession();
  EXPECT_TRUE(b.Sync(Tokens(10)).ok());
}

TEST_F(DialogueTest, ProgressRisesToOne) {
  const auto engine = Open();
  Session session = engine->NewSession();
  std::vector<double> shares;
  RunControl control;
  control.on_progress = [&](double share) { shares.push_back(share); };
  ASSERT_TRUE(session.Sync(Tokens(1500), control).ok());
  ASSERT_FALSE(shares.empty());
  EXPECT_TRUE(std::is_sorted(shares.begin(), shares.end()));
  EXPECT_NEAR(shares.back(), 1.0, 1e-9);
}

}  // namespace
}  // namespace loopserve
