#include "src/kvcache/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "src/kernels/attention.h"

namespace loopserve {
namespace {

using ::testing::HasSubstr;

// One token's KV as f32: [n_layers][2: key, value][n_kv_heads * head_dim].
using TokenRows = std::vector<float>;

KvLayout SmallLayout(KvType type = KvType::kF16) {
  return {.n_layers = 2, .n_kv_heads = 3, .head_dim = 32, .type = type, .block_tokens = 4};
}

TokenRows RandomToken(const KvLayout& layout, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  TokenRows rows(static_cast<size_t>(layout.n_layers) * 2 * layout.n_kv_heads * layout.head_dim);
  for (float& x : rows) x = normal(rng);
  return rows;
}

// Stores tokens at first_position in every layer; strided rows with a gap, as a fused QKV product leaves them.
void Store(KvCache& cache, int64_t first_position, const std::vector<TokenRows>& tokens) {
  const KvLayout& layout = cache.layout();
  const size_t width = static_cast<size_t>(layout.n_kv_heads) * layout.head_dim;
  const size_t stride = 2 * width + 5;
  for (int layer = 0; layer < layout.n_layers; ++layer) {
    std::vector<float> rows(tokens.size() * stride, std::numeric_limits<float>::quiet_NaN());
    for (size_t t = 0; t < tokens.size(); ++t) {
      std::copy_n(tokens[t].begin() + static_cast<std::ptrdiff_t>(layer * 2 * width), 2 * width,
                  rows.begin() + static_cast<std::ptrdiff_t>(t * stride));
    }
    cache.StoreRows(layer, first_position, static_cast<int64_t>(tokens.size()), rows.data(), rows.data() + width,
                    static_cast<int64_t>(stride));
  }
}

void Append(KvCache& cache, const std::vector<TokenRows>& tokens) {
  const auto n = static_cast<int64_t>(tokens.size());
  ASSERT_TRUE(cache.ReserveTokens(n).ok());
  Store(cache, cache.n_tokens(), tokens);
  cache.CommitTokens(n);
}

// Every byte of every row equals StoreKvRow of the floats.
void ExpectHolds(const KvCache& cache, const std::vector<TokenRows>& tokens) {
  const KvLayout& layout = cache.layout();
  ASSERT_EQ(cache.n_tokens(), static_cast<int64_t>(tokens.size()));
  std::vector<std::byte> expected(layout.row_bytes());
  for (int layer = 0; layer < layout.n_layers; ++layer) {
    for (int head = 0; head < layout.n_kv_heads; ++head) {
      const KvHeadView view = cache.View(layer, head, cache.n_tokens());
      ASSERT_EQ(view.n_keys, cache.n_tokens());
      for (int64_t t = 0; t < view.n_keys; ++t) {
        for (const int kv : {0, 1}) {
          const size_t offset = (static_cast<size_t>(layer * 2 + kv) * layout.n_kv_heads + head) * layout.head_dim;
          StoreKvRow(layout.type, tokens[static_cast<size_t>(t)].data() + offset, layout.head_dim, expected.data());
          const std::byte* row = kv == 0 ? view.Key(t) : view.Value(t);
          ASSERT_EQ(std::memcmp(row, expected.data(), expected.size()), 0)
              << "layer " << layer << " head " << head << " token " << t << (kv == 0 ? " key" : " value");
        }
      }
    }
  }
}

bool IsZero(const std::byte* row, size_t n) {
  return std::all_of(row, row + n, [](std::byte b) { return b == std::byte{0}; });
}

std::vector<TokenRows> RandomTokens(const KvLayout& layout, size_t n, std::mt19937& rng) {
  std::vector<TokenRows> tokens(n);
  for (TokenRows& token : tokens) token = RandomToken(layout, rng);
  return tokens;
}

struct Dialogue {
  KvCache cache;
  std::vector<TokenRows> tokens;
};

// One random step on dialogue `d`; a fork or its end changes the list.
void RandomStep(std::vector<Dialogue>& dialogues, std::mt19937& rng) {
  const size_t index = rng() % dialogues.size();
  Dialogue& d = dialogues[index];
  const KvLayout layout = d.cache.layout();
  switch (rng() % 8) {
    case 0:
    case 1:
    case 2: {  // a prompt or a token
      const std::vector<TokenRows> added = RandomTokens(layout, rng() % 4 == 0 ? 1 + rng() % 11 : 1, rng);
      ASSERT_NO_FATAL_FAILURE(Append(d.cache, added));
      d.tokens.insert(d.tokens.end(), added.begin(), added.end());
      break;
    }
    case 3: {  // rewind, sometimes by nothing
      d.tokens.resize(rng() % (d.tokens.size() + 1));
      d.cache.Truncate(static_cast<int64_t>(d.tokens.size()));
      break;
    }
    case 4:
    case 5: {
      if (dialogues.size() < 6) {
        Dialogue fork{d.cache.Fork(), d.tokens};
        dialogues.push_back(std::move(fork));
      }
      break;
    }
    case 6: {  // given up half-way: stored, partly committed, the rest forgotten
      const std::vector<TokenRows> added = RandomTokens(layout, 1 + rng() % 9, rng);
      ASSERT_TRUE(d.cache.ReserveTokens(static_cast<int64_t>(added.size())).ok());
      Store(d.cache, d.cache.n_tokens(), added);
      const size_t n_kept = rng() % (added.size() + 1);
      d.cache.CommitTokens(static_cast<int64_t>(n_kept));
      d.tokens.insert(d.tokens.end(), added.begin(), added.begin() + static_cast<std::ptrdiff_t>(n_kept));
      if (rng() % 2 == 0) d.cache.Truncate(d.cache.n_tokens());
      break;
    }
    default:
      if (dialogues.size() > 1) dialogues.erase(dialogues.begin() + static_cast<std::ptrdiff_t>(index));
  }
}

class KvCacheRandomTest : public ::testing::TestWithParam<KvType> {};

TEST_P(KvCacheRandomTest, EqualsANaiveModelOfManyForks) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    std::mt19937 rng(seed);
    auto budget = std::make_shared<KvBudget>();
    {
      std::vector<Dialogue> dialogues;
      dialogues.push_back({KvCache(SmallLayout(GetParam()), budget), {}});
      for (int step = 0; step < 400; ++step) {
        ASSERT_NO_FATAL_FAILURE(RandomStep(dialogues, rng));
        size_t referenced = 0;
        size_t exclusive = 0;
        for (const Dialogue& d : dialogues) {
          ASSERT_NO_FATAL_FAILURE(ExpectHolds(d.cache, d.tokens)) << "seed " << seed << " step " << step;
          referenced += d.cache.referenced_bytes();
          exclusive += d.cache.exclusive_bytes();
        }
        ASSERT_LE(exclusive, budget->used_bytes());
        ASSERT_LE(budget->used_bytes(), referenced);
      }
    }
    EXPECT_EQ(budget->used_bytes(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, KvCacheRandomTest, ::testing::Values(KvType::kF16, KvType::kQ8_0),
                         [](const auto& param_info) { return param_info.param == KvType::kF16 ? "F16" : "Q8_0"; });

TEST(KvCacheTest, ForksShareUntilOneWrites) {
  std::mt19937 rng(1);
  const KvLayout layout = SmallLayout();
  auto budget = std::make_shared<KvBudget>();
  KvCache cache(layout, budget);
  std::vector<TokenRows> tokens = RandomTokens(layout, 10, rng);  // blocks of 4, 4 and 2
  ASSERT_NO_FATAL_FAILURE(Append(cache, tokens));
  EXPECT_EQ(cache.exclusive_bytes(), 3 * layout.block_bytes());
  {
    KvCache fork = cache.Fork();
    EXPECT_EQ(budget->used_bytes(), 3 * layout.block_bytes());
    EXPECT_EQ(fork.referenced_bytes(), 3 * layout.block_bytes());
    EXPECT_EQ(fork.exclusive_bytes(), 0u);
    EXPECT_EQ(cache.View(0, 0, 1).Key(0), fork.View(0, 0, 1).Key(0));

    const std::vector<TokenRows> added = RandomTokens(layout, 1, rng);
    ASSERT_NO_FATAL_FAILURE(Append(fork, added));
    std::vector<TokenRows> forked = tokens;
    forked.push_back(added[0]);
    EXPECT_EQ(budget->used_bytes(), 4 * layout.block_bytes());
    EXPECT_EQ(fork.exclusive_bytes(), layout.block_bytes());
    EXPECT_EQ(cache.exclusive_bytes(), layout.block_bytes());
    ExpectHolds(fork, forked);
    ExpectHolds(cache, tokens);
  }
  EXPECT_EQ(budget->used_bytes(), 3 * layout.block_bytes());
  EXPECT_EQ(cache.exclusive_bytes(), 3 * layout.block_bytes());
}

TEST(KvCacheTest, AppendAfterTruncatingIntoASharedBlockCopiesIt) {
  std::mt19937 rng(2);
  const KvLayout layout = SmallLayout();
  KvCache cache(layout, nullptr);
  const std::vector<TokenRows> tokens = RandomTokens(layout, 8, rng);
  ASSERT_NO_FATAL_FAILURE(Append(cache, tokens));
  KvCache fork = cache.Fork();
  fork.Truncate(5);
  const std::vector<TokenRows> added = RandomTokens(layout, 2, rng);
  ASSERT_NO_FATAL_FAILURE(Append(fork, added));
  std::vector<TokenRows> forked(tokens.begin(), tokens.begin() + 5);
  forked.insert(forked.end(), added.begin(), added.end());
  ExpectHolds(fork, forked);
  ExpectHolds(cache, tokens);
}

TEST(KvCacheTest, AForkLeavesTheWritersReservationAlone) {
  std::mt19937 rng(3);
  const KvLayout layout = SmallLayout();
  KvCache cache(layout, nullptr);
  std::vector<TokenRows> tokens = RandomTokens(layout, 3, rng);
  ASSERT_NO_FATAL_FAILURE(Append(cache, {tokens[0], tokens[1]}));
  ASSERT_TRUE(cache.ReserveTokens(1).ok());
  Store(cache, 2, {tokens[2]});
  KvCache fork = cache.Fork();               // shares the block that the third row is in
  ASSERT_TRUE(cache.ReserveTokens(2).ok());  // copies it, with the row that was stored
  cache.CommitTokens(1);
  ExpectHolds(cache, tokens);
  ExpectHolds(fork, {tokens[0], tokens[1]});
}

TEST(KvCacheTest, RowsReservedButNotStoredAreZero) {
  std::mt19937 rng(4);
  for (const bool by_fork : {false, true}) {
    const KvLayout layout = SmallLayout();
    KvCache cache(layout, nullptr);
    ASSERT_NO_FATAL_FAILURE(Append(cache, RandomTokens(layout, 1, rng)));
    KvCache survivor = cache.Fork();
    ASSERT_NO_FATAL_FAILURE(Append(cache, RandomTokens(layout, 3, rng)));
    if (by_fork) {  // the fork now owns the block that its sibling wrote
      survivor = cache.Fork();
      survivor.Truncate(1);
      cache = KvCache(layout, nullptr);
    } else {
      cache.Truncate(1);
      survivor = std::move(cache);
    }
    ASSERT_TRUE(survivor.ReserveTokens(6).ok());
    for (int layer = 0; layer < layout.n_layers; ++layer) {
      for (int head = 0; head < layout.n_kv_heads; ++head) {
        const KvHeadView view = survivor.View(layer, head, 7);
        EXPECT_FALSE(IsZero(view.Key(0), view.row_bytes));
        for (int64_t t = 1; t < 7; ++t) {
          EXPECT_TRUE(IsZero(view.Key(t), view.row_bytes)) << t;
          EXPECT_TRUE(IsZero(view.Value(t), view.row_bytes)) << t;
        }
      }
    }
  }
}

TEST(KvCacheTest, FailureAtTheBudgetChangesNothing) {
  std::mt19937 rng(5);
  const KvLayout layout = SmallLayout();
  auto budget = std::make_shared<KvBudget>(3 * layout.block_bytes() + 7);
  KvCache cache(layout, budget);
  std::vector<TokenRows> tokens = RandomTokens(layout, 6, rng);
  ASSERT_NO_FATAL_FAILURE(Append(cache, tokens));

  const Status status = cache.ReserveTokens(7);  // two blocks more; one is left
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr(std::to_string(2 * layout.block_bytes()) + " more bytes are needed"));
  EXPECT_THAT(status.message(), HasSubstr(std::to_string(2 * layout.block_bytes()) + " bytes are used"));
  EXPECT_THAT(status.message(), HasSubstr("limit is " + std::to_string(3 * layout.block_bytes() + 7)));
  EXPECT_EQ(budget->used_bytes(), 2 * layout.block_bytes());
  ExpectHolds(cache, tokens);

  KvCache fork = cache.Fork();
  ASSERT_TRUE(cache.ReserveTokens(1).ok());  // the copy of the tail takes the last block
  EXPECT_EQ(fork.ReserveTokens(3).code(), StatusCode::kResourceExhausted);
  ExpectHolds(fork, tokens);
  EXPECT_EQ(fork.exclusive_bytes(), layout.block_bytes());
  EXPECT_TRUE(fork.ReserveTokens(2).ok());  // its tail is its own now
}

TEST(KvCacheTest, HopelessReservationsAreErrors) {
  KvCache cache(SmallLayout(), nullptr);
  EXPECT_EQ(cache.ReserveTokens(std::numeric_limits<int64_t>::max()).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(cache.ReserveTokens(int64_t{1} << 58).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(cache.referenced_bytes(), 0u);
  ASSERT_TRUE(cache.ReserveTokens(1).ok());
  cache.CommitTokens(1);
  EXPECT_EQ(cache.ReserveTokens(std::numeric_limits<int64_t>::max()).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(cache.n_tokens(), 1);

  // A block larger than any memory.
  auto budget = std::make_shared<KvBudget>();
  KvCache huge({.n_layers = 1 << 14, .n_kv_heads = 1 << 12, .head_dim = 1 << 12, .block_tokens = 1 << 16}, budget);
  EXPECT_EQ(huge.ReserveTokens(1).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(budget->used_bytes(), 0u);
}

TEST(KvCacheTest, TruncateGivesReservedBlocksBack) {
  const KvLayout layout = SmallLayout();
  auto budget = std::make_shared<KvBudget>();
  KvCache cache(layout, budget);
  ASSERT_TRUE(cache.ReserveTokens(9).ok());
  EXPECT_EQ(budget->used_bytes(), 3 * layout.block_bytes());
  cache.CommitTokens(4);
  cache.Truncate(4);
  EXPECT_EQ(budget->used_bytes(), layout.block_bytes());
  cache.Truncate(0);
  EXPECT_EQ(budget->used_bytes(), 0u);
}

TEST(KvCacheTest, ReservingLessThanIsReservedKeepsTheRest) {
  std::mt19937 rng(6);
  const KvLayout layout = SmallLayout();
  KvCache cache(layout, nullptr);
  const std::vector<TokenRows> tokens = RandomTokens(layout, 9, rng);
  ASSERT_TRUE(cache.ReserveTokens(9).ok());
  Store(cache, 0, tokens);
  ASSERT_TRUE(cache.ReserveTokens(1).ok());
  ASSERT_TRUE(cache.ReserveTokens(0).ok());
  cache.CommitTokens(9);
  ExpectHolds(cache, tokens);
}

TEST(KvCacheTest, ThreadsStoreDisjointRows) {
  std::mt19937 rng(7);
  const KvLayout layout = SmallLayout();
  KvCache cache(layout, nullptr);
  const std::vector<TokenRows> tokens = RandomTokens(layout, 61, rng);
  ASSERT_TRUE(cache.ReserveTokens(61).ok());
  std::vector<std::thread> threads;
  for (int64_t part = 0; part < 4; ++part) {
    threads.emplace_back([&, part] {
      const int64_t begin = 61 * part / 4;
      const int64_t end = 61 * (part + 1) / 4;
      Store(cache, begin, std::vector<TokenRows>(tokens.begin() + begin, tokens.begin() + end));
    });
  }
  for (std::thread& thread : threads) thread.join();
  cache.CommitTokens(61);
  ExpectHolds(cache, tokens);
}

TEST(KvCacheTest, AMovedFromCacheIsEmptyAndWorks) {
  std::mt19937 rng(8);
  const KvLayout layout = SmallLayout();
  auto budget = std::make_shared<KvBudget>();
  KvCache a(layout, budget);
  const std::vector<TokenRows> tokens = RandomTokens(layout, 5, rng);
  ASSERT_NO_FATAL_FAILURE(Append(a, tokens));
  KvCache b = std::move(a);
  ExpectHolds(b, tokens);
  ExpectHolds(a, {});  // NOLINT(bugprone-use-after-move)
  ASSERT_NO_FATAL_FAILURE(Append(a, {tokens[3]}));
  ExpectHolds(a, {tokens[3]});
  b = std::move(a);
  ExpectHolds(b, {tokens[3]});
  EXPECT_EQ(budget->used_bytes(), layout.block_bytes());
}

TEST(KvCacheTest, LargeBlocksAreAlignedAndGivenBack) {
  auto budget = std::make_shared<KvBudget>();
  const KvLayout layout{.n_layers = 30, .n_kv_heads = 3, .head_dim = 64};
  KvCache cache(layout, budget);
  ASSERT_TRUE(cache.ReserveTokens(600).ok());
  const KvHeadView view = cache.View(29, 2, 600);
  for (int block = 0; block < 3; ++block) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.blocks[block]) % kKvBlockAlignment, 0u);
    const std::byte* last = view.Value(block * 256 + (block == 2 ? 87 : 255));
    EXPECT_TRUE(IsZero(last, view.row_bytes));
  }
  EXPECT_EQ(view.value_offset_bytes + 256 * view.row_bytes, layout.block_bytes());
  EXPECT_EQ(budget->used_bytes(), 3 * layout.block_bytes());
}

TEST(KvBudgetTest, TakesAllOrNothing) {
  KvBudget budget(100);
  EXPECT_TRUE(budget.TryTake(60));
  EXPECT_FALSE(budget.TryTake(41));
  EXPECT_EQ(budget.used_bytes(), 60u);
  EXPECT_TRUE(budget.TryTake(40));
  EXPECT_FALSE(budget.TryTake(1));
  budget.Give(100);
  EXPECT_EQ(budget.used_bytes(), 0u);

  KvBudget unlimited;
  EXPECT_TRUE(unlimited.TryTake(std::numeric_limits<size_t>::max()));
  EXPECT_FALSE(unlimited.TryTake(1));  // would overflow
}

TEST(KvBudgetTest, CountsUnderContention) {
  KvBudget budget(10);
  std::atomic<bool> exceeded{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int step = 0; step < 20000; ++step) {
        if (!budget.TryTake(3)) continue;
        if (budget.used_bytes() > 9) exceeded = true;
        budget.Give(3);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(budget.used_bytes(), 0u);
}

TEST(KvLayoutTest, Validate) {
  const KvLayout good = SmallLayout();
  EXPECT_TRUE(good.Validate().ok());
  const int max = std::numeric_limits<int>::max();
  const struct {
    const char* name;
    KvLayout layout;
  } kCases[] = {
      {"no layers", {.n_layers = 0, .n_kv_heads = 1, .head_dim = 32}},
      {"negative heads", {.n_layers = 1, .n_kv_heads = -1, .head_dim = 32}},
      {"no head_dim", {.n_layers = 1, .n_kv_heads = 1, .head_dim = 0}},
      {"no block_tokens", {.n_layers = 1, .n_kv_heads = 1, .head_dim = 32, .block_tokens = 0}},
      {"q8_0 of 48", {.n_layers = 1, .n_kv_heads = 1, .head_dim = 48, .type = KvType::kQ8_0}},
      {"overflow", {.n_layers = max, .n_kv_heads = max, .head_dim = 32, .block_tokens = max}},
  };
  for (const auto& c : kCases) EXPECT_EQ(c.layout.Validate().code(), StatusCode::kInvalidArgument) << c.name;
}

}  // namespace
}  // namespace loopserve
