#include "src/server/session_pool.h"

#include <gtest/gtest.h>

#include <set>

#include "src/server/test_engine.h"

namespace loopserve::server {
namespace {

class SessionPoolTest : public testing::Test {
 protected:
  JobSpec Spec(std::vector<Token> prompt, SessionName name = {}, NameSpace name_space = {}) const {
    JobSpec spec;
    spec.prompt = std::move(prompt);
    spec.name = std::move(name);
    spec.name_space = std::move(name_space);
    return spec;
  }
  /// A whole turn: finds the dialogue, reads the prompt, and writes an answer of five tokens.
  std::string Turn(SessionPool& pool, const JobSpec& spec, int64_t* reused = nullptr, std::string* why = nullptr) {
    const SessionPool::Lease lease = pool.Acquire(spec);
    EXPECT_NE(lease.dialogue, nullptr);
    if (lease.dialogue == nullptr) return "";
    const auto stats = lease.dialogue->session.Sync(spec.prompt);
    EXPECT_TRUE(stats.ok()) << stats.status().message();
    EXPECT_TRUE(lease.dialogue->session.Generate(TestSampling(6)).ok());
    if (reused != nullptr) *reused = stats->cached_tokens;
    if (why != nullptr) *why = lease.divergence ? lease.divergence->reason : "";
    const std::string id = lease.dialogue->id;
    pool.Release(lease.dialogue, static_cast<int64_t>(spec.prompt.size()));
    return id;
  }
  static std::vector<Token> Join(std::span<const Token> a, std::span<const Token> b) {
    std::vector<Token> all(a.begin(), a.end());
    all.insert(all.end(), b.begin(), b.end());
    return all;
  }

  const TestModel model_;
  const std::shared_ptr<Engine> engine_ = model_.Open();
};

TEST_F(SessionPoolTest, TheLongestPrefixGoesOnInPlace) {
  SessionPool pool(engine_, {});
  const std::vector<Token> a = TestTokens(100, 1), b = TestTokens(120, 2);
  const std::string id_a = Turn(pool, Spec(a)), id_b = Turn(pool, Spec(b));
  EXPECT_NE(id_a, id_b);
  int64_t reused = 0;
  std::string why;
  const auto held = pool.HeldTokens({}, {}, {}, a);
  ASSERT_NE(held, nullptr);
  EXPECT_EQ(held->size(), 105u);
  EXPECT_EQ(Turn(pool, Spec(Join(*held, TestTokens(20, 3))), &reused, &why), id_a);
  EXPECT_EQ(reused, 105);
  EXPECT_EQ(why, "");
  EXPECT_EQ(Turn(pool, Spec(b), &reused, &why), id_b) << "the answer is asked for again";
  EXPECT_EQ(reused, 119);
  EXPECT_EQ(why, "history_differs");
  EXPECT_EQ(pool.size(), 2u);
}

TEST_F(SessionPoolTest, AnotherWayFromALongPastIsAFork) {
  SessionPool pool(engine_, {});
  const std::vector<Token> past = TestTokens(400, 1);
  const std::string first = Turn(pool, Spec(Join(past, TestTokens(100, 2))));
  int64_t reused = 0;
  const std::string second = Turn(pool, Spec(Join(past, TestTokens(100, 3))), &reused);
  EXPECT_NE(first, second);
  EXPECT_EQ(reused, 400);
  const std::string third = Turn(pool, Spec(Join(std::span(past).first(100), TestTokens(300, 4))), &reused);
  EXPECT_EQ(reused, 0) << "too little is shared";
  EXPECT_EQ(pool.size(), 3u);
  EXPECT_EQ(Turn(pool, Spec(Join(past, TestTokens(100, 2))), &reused), first);
  EXPECT_EQ(reused, 499);
}

TEST_F(SessionPoolTest, WhatOneDialogueForgotIsNotSharedWithAnother) {
  SessionPool pool(engine_, {});
  const std::vector<Token> past = TestTokens(400, 1);
  JobSpec spec = Spec(Join(past, TestTokens(100, 2)));
  const auto policy = Policy::Parse("snapkv:budget=128");
  ASSERT_TRUE(policy.ok()) << policy.status().message();
  spec.policy = *policy;
  const std::string first = Turn(pool, spec);
  spec.prompt = Join(past, TestTokens(100, 3));
  int64_t reused = -1;
  EXPECT_NE(Turn(pool, spec, &reused), first);
  EXPECT_EQ(reused, 0);
}

TEST_F(SessionPoolTest, NameSpacesAndPoliciesNeverMeet) {
  SessionPool pool(engine_, {});
  const std::vector<Token> prompt = TestTokens(600, 1);
  int64_t reused = 0;
  std::set<std::string> ids;
  for (const NameSpace& name_space : {NameSpace{}, NameSpace{"tenant", ""}, NameSpace{"", "salt"}}) {
    ids.insert(Turn(pool, Spec(prompt, {}, name_space), &reused));
    EXPECT_EQ(reused, 0);
  }
  JobSpec sparse = Spec(prompt);
  sparse.policy = *Policy::Parse(kSparsePolicy);
  ids.insert(Turn(pool, sparse, &reused));
  EXPECT_EQ(reused, 0);
  EXPECT_EQ(ids.size(), 4u);
  EXPECT_EQ(pool.HeldTokens({"other", ""}, {}, {}, prompt), nullptr);
  EXPECT_EQ(pool.List("tenant").size(), 1u);
  EXPECT_EQ(pool.List("").size(), 3u);
  EXPECT_EQ(pool.List("other").size(), 0u);
  const std::string id = pool.List("tenant")[0].id;
  EXPECT_EQ(pool.Delete("", id).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(pool.SetPinned("other", id, true).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(pool.Fork("", id, "").status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(pool.Delete("tenant", id).ok());
  EXPECT_EQ(pool.List("tenant").size(), 0u);
}

TEST_F(SessionPoolTest, ANameMeansOneDialogue) {
  SessionPool pool(engine_, {});
  const SessionName name{"mine", true};
  const std::string id = Turn(pool, Spec(TestTokens(100, 1), name));
  std::string why;
  int64_t reused = 0;
  std::vector<Token> edited = TestTokens(100, 1);
  edited[50] ^= 1;
  EXPECT_EQ(Turn(pool, Spec(edited, name), &reused, &why), id);
  EXPECT_EQ(reused, 50);
  EXPECT_EQ(why, "history_differs");
  JobSpec sparse = Spec(edited, name);
  sparse.policy = *Policy::Parse(kSparsePolicy);
  EXPECT_EQ(Turn(pool, sparse, &reused, &why), id);
  EXPECT_EQ(reused, 0);
  EXPECT_EQ(why, "policy_changed");
  EXPECT_EQ(pool.size(), 1u);
  // Busy: whoever comes waits. Nobody else may go on in it.
  const auto lease = pool.Acquire(sparse);
  EXPECT_EQ(pool.Acquire(sparse).dialogue, nullptr);
  pool.Release(lease.dialogue, 0);
  JobSpec unnamed = sparse;
  unnamed.name = {};
  EXPECT_NE(Turn(pool, unnamed), id);
}

TEST_F(SessionPoolTest, MemoryIsMadeByDroppingTheLeastRecentlyUsed) {
  const size_t block = engine_->kv_block_bytes();
  const auto engine = model_.Open(3 * block);
  SessionPool pool(engine, {.kv_budget_bytes = 3 * block});
  const std::string a = Turn(pool, Spec(TestTokens(100, 1))), b = Turn(pool, Spec(TestTokens(100, 2)));
  const std::string c = Turn(pool, Spec(TestTokens(100, 3)));
  EXPECT_TRUE(pool.SetPinned("", a, true).ok());
  EXPECT_TRUE(pool.MakeRoom(block));
  std::vector<std::string> left;
  for (const SessionInfo& info : pool.List("")) left.push_back(info.id);
  EXPECT_EQ(left, (std::vector{a, c}));
  EXPECT_TRUE(pool.MakeRoom(2 * block));
  EXPECT_FALSE(pool.MakeRoom(3 * block)) << "a is pinned";
  EXPECT_EQ(pool.n_dropped(), 2);
  EXPECT_EQ(engine->kv_used_bytes(), block);
}

TEST_F(SessionPoolTest, TheNumberOfDialoguesIsLimited) {
  SessionPool pool(engine_, {.max_sessions = 3});
  for (unsigned i = 0; i < 6; ++i) Turn(pool, Spec(TestTokens(20, i)));
  EXPECT_EQ(pool.size(), 3u);
}

TEST_F(SessionPoolTest, AForkOutlivesTheDialogueThatItComesFrom) {
  SessionPool pool(engine_, {.max_sessions = 1});
  const std::vector<Token> shared = TestTokens(300, 1);
  const NameSpace salted = {"key", "salt"};
  Turn(pool, Spec(Join(shared, TestTokens(20, 2)), {}, salted));
  // Makes room for the fork by unloading its source.
  const std::string fork = Turn(pool, Spec(Join(shared, TestTokens(20, 3)), {}, salted));
  EXPECT_EQ(pool.size(), 1u);
  int64_t reused = 0;
  EXPECT_EQ(Turn(pool, Spec(Join(Join(shared, TestTokens(20, 3)), TestTokens(20, 4)), {}, salted), &reused), fork)
      << "it is found by the same key and salt";
  EXPECT_GE(reused, 300);
}

TEST_F(SessionPoolTest, ForkingByHand) {
  SessionPool pool(engine_, {});
  const std::vector<Token> prompt = TestTokens(300, 1);
  const std::string id = Turn(pool, Spec(prompt));
  auto fork = pool.Fork("", id, "copy");
  ASSERT_TRUE(fork.ok());
  EXPECT_TRUE(pool.Prepare(&*fork, std::chrono::milliseconds(0))) << "it is in memory";
  const std::string fork_id = fork->dialogue->id;
  pool.Release(fork->dialogue, 0);
  EXPECT_EQ(pool.Fork("", id, "copy").status().code(), StatusCode::kInvalidArgument);
  int64_t reused = 0;
  EXPECT_EQ(Turn(pool, Spec(Join(prompt, TestTokens(5, 2)), {"copy", true}), &reused), fork_id);
  EXPECT_EQ(reused, 300);
  EXPECT_EQ(pool.Fork("", "nobody", "").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace loopserve::server
