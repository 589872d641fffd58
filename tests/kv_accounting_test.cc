// What counts against the KV budget: blocks, and all that policies keep beside them, each taken before it is there and
// given back when it goes.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "loopserve/engine.h"
#include "src/base/temp_dir.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

constexpr int kTokens = 700;

std::vector<Token> Tokens(int n) {
  std::mt19937 random(1);
  std::vector<Token> tokens(static_cast<size_t>(n));
  for (Token& token : tokens) token = static_cast<Token>(random() % 256);
  return tokens;
}

class KvAccountingTest : public testing::TestWithParam<const char*> {
 protected:
  KvAccountingTest() {
    TinyGgufOptions tiny = TinyModel(TinyFamily::kLlama);
    tiny.context_tokens = 4096;
    EXPECT_TRUE(WriteTinyGguf(tiny, Path()).ok());
  }
  std::string Path() const { return (dir_.path() / "tiny.gguf").string(); }
  std::shared_ptr<Engine> Open(size_t budget_bytes = 0) const {
    EngineOptions options;
    options.model_path = Path();
    options.threads = 1;
    options.kv_budget_bytes = budget_bytes;
    return *Engine::Open(options);
  }
  /// A prompt and an answer of so many tokens; the first error.
  static Status Run(Session& session, int answer, const std::function<void()>& each = {}) {
    LS_RETURN_IF_ERROR(session.Sync(Tokens(kTokens)).status());
    SamplingParams sampling;
    sampling.max_tokens = answer;
    sampling.ignore_end_of_text = true;
    LS_ASSIGN_OR_RETURN(Answer writing, session.BeginAnswer(sampling));
    for (bool ended = false; !ended;) {
      LS_ASSIGN_OR_RETURN(const AnswerStep step, writing.Next());
      ended = step.ended;
      if (each) each();
    }
    return Status::Ok();
  }
  const Policy policy_ = *Policy::Parse(GetParam());
  const TempDir dir_;
};

TEST_P(KvAccountingTest, SessionsAndForksAddUp) {
  const auto engine = Open();
  {
    Session session = engine->NewSession(policy_);
    size_t most = 0;
    const Status status = Run(session, 90, [&] {
      EXPECT_EQ(session.kv_bytes(), engine->kv_used_bytes());
      EXPECT_EQ(session.exclusive_kv_bytes(), engine->kv_used_bytes());
      most = std::max(most, session.kv_bytes());
    });
    ASSERT_TRUE(status.ok()) << status.message();
    const size_t blocks = 4 * engine->kv_block_bytes();
    EXPECT_EQ(most > blocks, !policy_.is_dense()) << "what is kept beside the blocks counts";
    const size_t planned = engine->kv_bytes_for(policy_, kTokens + 90);
    EXPECT_GE(planned + planned / 8, most);
    EXPECT_LE(planned, most + most / 2);

    const size_t before = engine->kv_used_bytes();
    Session fork = session.Fork();
    EXPECT_EQ(engine->kv_used_bytes(), before) << "a fork takes nothing";
    ASSERT_TRUE(Run(fork, 70).ok());
    EXPECT_GT(engine->kv_used_bytes(), before);
    EXPECT_LE(engine->kv_used_bytes(), session.kv_bytes() + fork.kv_bytes());
    EXPECT_GE(engine->kv_used_bytes(), session.exclusive_kv_bytes() + fork.exclusive_kv_bytes());
    // Rewound to nothing it keeps room at most, and no KV.
    ASSERT_TRUE(session.Sync(Tokens(10)).ok());
    session = engine->NewSession(policy_);
    EXPECT_EQ(engine->kv_used_bytes(), fork.kv_bytes());
  }
  EXPECT_EQ(engine->kv_used_bytes(), 0u);
}

TEST_P(KvAccountingTest, TheLimitIsNeverPassedAndMissingRoomIsAnError) {
  const auto free = Open();
  Session session = free->NewSession(policy_);
  size_t most = 0;
  ASSERT_TRUE(Run(session, 20, [&] { most = std::max(most, free->kv_used_bytes()); }).ok());
  const std::vector<Token> held(session.tokens().begin(), session.tokens().end());
  for (int part = 1; part <= 20; ++part) {
    // From too little for anything to exactly enough.
    const size_t limit = most * static_cast<size_t>(part) / 20;
    const auto engine = Open(limit);
    {
      Session limited = engine->NewSession(policy_);
      const Status status = Run(limited, 20, [&] { EXPECT_LE(engine->kv_used_bytes(), limit); });
      EXPECT_LE(engine->kv_used_bytes(), limit);
      if (part < 20) {
        EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << part << " " << status.message();
      } else {
        EXPECT_TRUE(status.ok()) << status.message();
        EXPECT_TRUE(std::ranges::equal(limited.tokens(), held));
      }
    }
    EXPECT_EQ(engine->kv_used_bytes(), 0u) << part;
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, KvAccountingTest,
                         testing::Values("dense", "loopserve:min_keys=64,decode_min_keys=64,budget=64,recent=8",
                                         "quest:budget=96,dense_layers=0",
                                         "paper:rows=16,budget=64,interval=4,queries=6", "snapkv:budget=128",
                                         "h2o:budget=128", "streaming:budget=128"));

}  // namespace
}  // namespace loopserve
