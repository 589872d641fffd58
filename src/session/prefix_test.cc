#include "src/session/prefix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace loopserve {
namespace {

using Tokens = std::vector<Token>;

TEST(PlanSyncTest, NamedCases) {
  const struct {
    const char* name;
    Tokens held;
    Tokens prompt;
    bool have_logits;
    SyncKind kind;
    int64_t keep_tokens;
    int64_t new_tokens;
  } kCases[] = {
      {"first turn", {}, {1, 2, 3}, false, SyncKind::kExtend, 0, 3},
      {"next turn", {1, 2}, {1, 2, 3, 4}, true, SyncKind::kExtend, 2, 2},
      {"next turn without logits", {1, 2}, {1, 2, 3, 4}, false, SyncKind::kExtend, 2, 2},
      {"the same prompt again", {1, 2, 3}, {1, 2, 3}, true, SyncKind::kExtend, 3, 0},
      {"the same prompt, logits lost", {1, 2, 3}, {1, 2, 3}, false, SyncKind::kExtend, 2, 1},
      {"the same single token, logits lost", {1}, {1}, false, SyncKind::kExtend, 0, 1},
      {"the answer is asked for again", {1, 2, 3, 4}, {1, 2, 3}, true, SyncKind::kRewind, 2, 1},
      {"rewound to one token", {1, 2, 3}, {1}, true, SyncKind::kRebuild, 0, 1},
      {"a thinking tag was stripped", {1, 2, 9, 9, 3}, {1, 2, 3, 4}, true, SyncKind::kRewind, 2, 2},
      {"the last token differs", {1, 2, 3}, {1, 2, 4}, true, SyncKind::kRewind, 2, 1},
      {"another system prompt", {1, 2, 3}, {9, 2, 3}, true, SyncKind::kRebuild, 0, 3},
      {"a single other token", {1}, {2}, true, SyncKind::kRebuild, 0, 1},
      {"empty prompt", {1, 2}, {}, true, SyncKind::kRebuild, 0, 0},
      {"both empty", {}, {}, false, SyncKind::kRebuild, 0, 0},
  };
  for (const auto& c : kCases) {
    const SyncPlan plan = PlanSync(c.held, c.prompt, c.have_logits);
    EXPECT_EQ(plan.kind, c.kind) << c.name;
    EXPECT_EQ(plan.keep_tokens, c.keep_tokens) << c.name;
    EXPECT_EQ(plan.new_tokens, c.new_tokens) << c.name;
  }
}

TEST(PlanSyncTest, RandomPrompts) {
  std::mt19937 rng(1);
  for (int round = 0; round < 20000; ++round) {
    Tokens held(rng() % 6);
    Tokens prompt(1 + rng() % 6);
    for (Token& t : held) t = static_cast<Token>(rng() % 2);
    for (Token& t : prompt) t = static_cast<Token>(rng() % 2);
    const bool have_logits = rng() % 2 == 0;
    const SyncPlan plan = PlanSync(held, prompt, have_logits);

    ASSERT_GE(plan.keep_tokens, 0);
    ASSERT_LE(plan.keep_tokens, static_cast<int64_t>(held.size()));
    ASSERT_EQ(plan.keep_tokens + plan.new_tokens, static_cast<int64_t>(prompt.size()));
    // Doing what the plan says gives the prompt ...
    ASSERT_TRUE(std::equal(held.begin(), held.begin() + plan.keep_tokens, prompt.begin()));
    // ... with known logits at its end ...
    ASSERT_TRUE(plan.new_tokens > 0 || (have_logits && held == prompt));
    // ... and keeping one token more would not.
    const auto keep = static_cast<size_t>(plan.keep_tokens);
    const bool could_keep_more = keep < held.size() && keep < prompt.size() && held[keep] == prompt[keep] &&
                                 (plan.new_tokens > 1 || (have_logits && held == prompt));
    ASSERT_FALSE(could_keep_more);
    if (plan.kind == SyncKind::kRebuild) {
      ASSERT_EQ(plan.keep_tokens, 0);
      ASSERT_FALSE(held.empty());
    }
    if (plan.kind == SyncKind::kRewind) {
      ASSERT_GT(plan.keep_tokens, 0);
      ASSERT_LT(plan.keep_tokens, static_cast<int64_t>(held.size()));
    }
    if (plan.kind == SyncKind::kExtend) {
      ASSERT_TRUE(keep == held.size() || (held == prompt && !have_logits));
    }
  }
}

}  // namespace
}  // namespace loopserve
