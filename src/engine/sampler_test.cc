#include "src/engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

namespace loopserve {
namespace {

using ::testing::ElementsAre;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Logits = std::vector<float>;

Logits Log(const std::vector<double>& probabilities) {
  Logits logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

Logits RandomLogits(size_t n, float spread, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, spread);
  Logits logits(n);
  for (float& x : logits) x = normal(rng);
  return logits;
}

// The tokens that are ever drawn. Temperature comes last, so a high one makes all that were kept about equally likely.
std::set<Token> Kept(SamplingParams params, const Logits& logits, int draws = 3000) {
  params.temperature = 100;
  Sampler sampler(params);
  std::set<Token> kept;
  for (int i = 0; i < draws; ++i) kept.insert(sampler.Sample(logits, {}));
  return kept;
}

// Chi-square statistic of n draws against the probabilities, each of which must not be tiny.
double ChiSquare(Sampler& sampler, const Logits& logits, const std::map<Token, double>& expected, int n) {
  std::map<Token, int> counts;
  for (int i = 0; i < n; ++i) ++counts[sampler.Sample(logits, {})];
  double sum = 0;
  for (const auto& [token, p] : expected) {
    sum += (counts[token] - n * p) * (counts[token] - n * p) / (n * p);
    counts.erase(token);
  }
  for (const auto& [token, count] : counts) ADD_FAILURE() << "token " << token << " drawn " << count << " times";
  return sum;
}

TEST(SamplerTest, GreedyTakesTheFirstLargest) {
  const struct {
    const char* name;
    Logits logits;
    Token token;
  } kCases[] = {
      {"one token", {3.0f}, 0},           {"last", {1, 2, 3}, 2},
      {"tie", {1, 3, 3, 2}, 1},           {"signed zeros tie", {-1, -0.0f, 0.0f}, 1},
      {"NaN first", {kNan, 1, 2}, 2},     {"NaN last", {1, 2, kNan}, 1},
      {"all NaN", {kNan, kNan}, 0},       {"all -inf", {-kInf, -kInf}, 0},
      {"-inf and NaN", {kNan, -kInf}, 0}, {"only one finite", {-kInf, kNan, -1e30f}, 2},
      {"+inf", {1, kInf, 3, kInf}, 1},    {"one token, NaN", {kNan}, 0},
  };
  for (const auto& c : kCases) {
    Sampler greedy({});
    EXPECT_EQ(greedy.Sample(c.logits, {}), c.token) << c.name;
    // Where there is nothing to choose from by chance, drawing gives the same.
    if (std::ranges::count_if(c.logits, [](float x) { return std::isfinite(x); }) > 1) continue;
    for (const int32_t top_k : {0, 1, 40}) {
      for (const float top_p : {1.0f, 0.5f}) {
        Sampler random({.temperature = 1, .top_k = top_k, .top_p = top_p, .min_p = 0.1f});
        EXPECT_EQ(random.Sample(c.logits, {}), c.token) << c.name << " top_k " << top_k << " top_p " << top_p;
      }
    }
  }
}

TEST(SamplerTest, FirstLargestEqualsAPlainScan) {
  std::mt19937 rng(1);
  for (int round = 0; round < 3000; ++round) {
    Logits values(1 + rng() % 1500);
    for (float& x : values) x = static_cast<float>(rng() % 200);
    for (size_t i = rng() % 5; i > 0; --i) values[rng() % values.size()] = rng() % 2 == 0 ? kNan : -kInf;
    float best = -kInf;
    int64_t index = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i] > best) best = values[i], index = static_cast<int64_t>(i);
    }
    ASSERT_EQ(FirstLargest(values), std::make_pair(best, index)) << values.size();
  }
}

TEST(SamplerTest, DrawsBySoftmaxOfTemperature) {
  const std::vector<double> p = {0.05, 0.3, 0.1, 0.25, 0.2, 0.1};
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    std::map<Token, double> expected;
    double sum = 0;
    for (const double x : p) sum += std::pow(x, 1 / temperature);
    for (size_t i = 0; i < p.size(); ++i) expected[static_cast<Token>(i)] = std::pow(p[i], 1 / temperature) / sum;
    // The ways to draw: all tokens unsorted, sorted by top_k, sorted by top_p.
    for (const SamplingParams& params : {SamplingParams{.temperature = temperature, .seed = 7},
                                         SamplingParams{.temperature = temperature, .top_k = 5, .seed = 7},
                                         SamplingParams{.temperature = temperature, .top_p = 0.9999f, .seed = 7}}) {
      std::map<Token, double> kept = expected;
      if (params.top_k > 0) {
        kept.erase(0);
        for (auto& [token, x] : kept) x /= 1 - expected[0];
      }
      Sampler sampler(params);
      // 99.9% quantile of chi-square with 5 degrees of freedom: 20.5; the seed is fixed.
      EXPECT_LT(ChiSquare(sampler, Log(p), kept, 100000), 20.5) << temperature << " " << params.top_k;
    }
  }
}

TEST(SamplerTest, DrawsFromALargeVocabularyBySoftmax) {
  // 32 groups of tokens over many chunks; each group's probability is known.
  const size_t n = 9999;
  const Logits logits = RandomLogits(n, 2, 3);
  std::vector<double> groups(32, 0.0);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) groups[i * 32 / n] += std::exp(static_cast<double>(logits[i]));
  for (const double g : groups) sum += g;
  for (const float top_p : {1.0f, 0.99999f}) {
    Sampler sampler({.temperature = 1, .top_p = top_p, .seed = 11});
    const int draws = top_p < 1 ? 1000 : 10000;
    std::vector<int> counts(32, 0);
    for (int i = 0; i < draws; ++i) ++counts[static_cast<size_t>(sampler.Sample(logits, {})) * 32 / n];
    double chi_square = 0;
    for (size_t g = 0; g < 32; ++g) {
      const double expected = draws * groups[g] / sum;
      chi_square += (counts[g] - expected) * (counts[g] - expected) / expected;
    }
    EXPECT_LT(chi_square, 61.1) << top_p;  // 99.9% quantile, 31 degrees of freedom
  }
}

TEST(SamplerTest, TopKKeepsTheMostLikelyAndTheFirstOfTies) {
  const Logits logits = {1, 5, 3, 5, 4, -kInf, kNan, 3};
  EXPECT_THAT(Kept({.top_k = 1}, logits), ElementsAre(1));
  EXPECT_THAT(Kept({.top_k = 2}, logits), ElementsAre(1, 3));
  EXPECT_THAT(Kept({.top_k = 3}, logits), ElementsAre(1, 3, 4));
  EXPECT_THAT(Kept({.top_k = 4}, logits), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Kept({.top_k = 5}, logits), ElementsAre(1, 2, 3, 4, 7));
  const std::set<Token> all = {0, 1, 2, 3, 4, 7};
  for (const int32_t top_k : {0, 6, 7, 8, 9, std::numeric_limits<int32_t>::max()}) {
    EXPECT_EQ(Kept({.top_k = top_k}, logits), all) << top_k;
  }
}

TEST(SamplerTest, TopPKeepsTheSmallestSetThatHasIt) {
  const Logits logits = Log({0.1, 0.4, 0.2, 0.3});
  EXPECT_THAT(Kept({.top_p = 0.01f}, logits), ElementsAre(1));
  EXPECT_THAT(Kept({.top_p = 0.39f}, logits), ElementsAre(1));
  EXPECT_THAT(Kept({.top_p = 0.41f}, logits), ElementsAre(1, 3));
  EXPECT_THAT(Kept({.top_p = 0.69f}, logits), ElementsAre(1, 3));
  EXPECT_THAT(Kept({.top_p = 0.71f}, logits), ElementsAre(1, 2, 3));
  EXPECT_THAT(Kept({.top_p = 0.91f}, logits), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Kept({.top_p = 1.0f}, logits), ElementsAre(0, 1, 2, 3));
  // Of what top_k left: 0.4 and 0.3 are 4/7 and 3/7.
  EXPECT_THAT(Kept({.top_k = 2, .top_p = 0.5f}, logits), ElementsAre(1));
  EXPECT_THAT(Kept({.top_k = 2, .top_p = 0.6f}, logits), ElementsAre(1, 3));
  // Equally likely tokens: the first ones.
  EXPECT_THAT(Kept({.top_p = 0.7f}, Logits(4, 0.0f)), ElementsAre(0, 1, 2));
}

TEST(SamplerTest, MinPDropsTokensThatAreLessLikely) {
  const Logits logits = Log({0.1, 0.4, 0.2, 0.3});
  EXPECT_THAT(Kept({.min_p = 0.0f}, logits), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Kept({.min_p = 0.24f}, logits), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Kept({.min_p = 0.26f}, logits), ElementsAre(1, 2, 3));
  EXPECT_THAT(Kept({.min_p = 0.51f}, logits), ElementsAre(1, 3));
  EXPECT_THAT(Kept({.min_p = 0.76f}, logits), ElementsAre(1));
  EXPECT_THAT(Kept({.min_p = 1.0f}, logits), ElementsAre(1));
  EXPECT_THAT(Kept({.min_p = 1.0f}, {2, 7, 7, 1}), ElementsAre(1, 2));
  EXPECT_THAT(Kept({.top_k = 3, .min_p = 0.6f}, logits), ElementsAre(1, 3));
  EXPECT_THAT(Kept({.top_p = 0.95f, .min_p = 0.6f}, logits), ElementsAre(1, 3));
  EXPECT_THAT(Kept({.top_p = 0.5f, .min_p = 0.01f}, logits), ElementsAre(1, 3));
}

// Against sorting everything, with vocabularies beyond the buffers of the partial selection.
TEST(SamplerTest, FiltersOfALargeVocabularyEqualAFullSort) {
  std::mt19937 rng(5);
  for (int round = 0; round < 25; ++round) {
    const size_t n = 2000 + rng() % 6000;
    Logits logits = RandomLogits(n, 1, rng());
    for (float& x : logits) x = std::round(x * 50) / 50;  // many ties
    const SamplingParams params{.top_k = rng() % 3 == 0 ? 0 : static_cast<int32_t>(1 + rng() % 60),
                                .top_p = rng() % 3 == 0 ? 1.0f : 0.001f * static_cast<float>(1 + rng() % 12),
                                .min_p = 0.6f};
    std::vector<Token> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](Token a, Token b) { return logits[size_t(a)] > logits[size_t(b)]; });
    const auto p = [&](Token t) { return std::exp(static_cast<double>(logits[size_t(t)])); };
    if (params.top_k > 0) order.resize(static_cast<size_t>(params.top_k));
    double sum = 0;
    for (const Token t : order) sum += p(t);
    double seen = 0;
    size_t keep = 0;
    while (keep < order.size() && seen < params.top_p * sum) seen += p(order[keep++]);
    if (params.top_p < 1) order.resize(keep);
    std::erase_if(order, [&, best = p(order[0])](Token t) { return p(t) < params.min_p * best; });
    ASSERT_EQ(Kept(params, logits, 1500), std::set<Token>(order.begin(), order.end())) << "round " << round;
  }
}

TEST(SamplerTest, PenaltiesByHand) {
  // Token 0 seen twice, 1 once, 3 once; logits 4, -1, 2, 3.5, 3.25.
  const Logits logits = {4, -1, 2, 3.5f, 3.25f};
  const std::vector<Token> recent = {0, 1, 3, 0};
  const struct {
    const char* name;
    SamplingParams params;
    Token token;
  } kCases[] = {
      {"off", {}, 0},
      {"repeat 1.1: 3.64, -1.1, 2, 3.18, 3.25", {.repeat_penalty = 1.1f}, 0},
      {"repeat 1.25: 3.2, -1.25, 2, 2.8, 3.25", {.repeat_penalty = 1.25f}, 4},
      {"presence 0.7: 3.3, -1.7, 2, 2.8, 3.25", {.presence_penalty = 0.7f}, 0},
      {"presence 0.8: 3.2, -1.8, 2, 2.7, 3.25", {.presence_penalty = 0.8f}, 4},
      {"frequency 0.35: 3.3, -1.35, 2, 3.15, 3.25", {.frequency_penalty = 0.35f}, 0},
      {"frequency 0.4: 3.2, -1.4, 2, 3.1, 3.25", {.frequency_penalty = 0.4f}, 4},
      {"frequency -1: 6, 0, 2, 4.5, 3.25", {.frequency_penalty = -1}, 0},
      {"window 3, frequency 0.7: 3.3 (once), ...", {.frequency_penalty = 0.7f, .penalty_window = 3}, 0},
      {"window 1, presence 2: 2, -1, 2, 3.5, 3.25", {.presence_penalty = 2, .penalty_window = 1}, 3},
      {"window 0", {.repeat_penalty = 10, .presence_penalty = 2, .penalty_window = 0}, 0},
      {"all three: 4/1.1 - 0.1 - 0.2 = 3.34",
       {.repeat_penalty = 1.1f, .presence_penalty = 0.1f, .frequency_penalty = 0.1f},
       0},
      {"all three: 4/1.1 - 0.1 - 0.3 = 3.24",
       {.repeat_penalty = 1.1f, .presence_penalty = 0.1f, .frequency_penalty = 0.15f},
       4},
  };
  for (const auto& c : kCases) {
    Sampler sampler(c.params);
    EXPECT_EQ(sampler.Sample(logits, recent), c.token) << c.name;
    EXPECT_EQ(sampler.Sample(logits, recent), c.token) << c.name << ", again";
  }
}

TEST(SamplerTest, NegativeLogitsAreMultiplied) {
  const std::vector<Token> recent = {0};
  Sampler sampler({.repeat_penalty = 2});
  EXPECT_EQ(sampler.Sample(Logits{-1, -1.5f}, recent), 1);  // -2 against -1.5
  EXPECT_EQ(sampler.Sample(Logits{-1, -2.5f}, recent), 0);
  EXPECT_EQ(sampler.Sample(Logits{0, -0.5f}, recent), 0);
  Sampler reward({.repeat_penalty = 0.5f});
  EXPECT_EQ(reward.Sample(Logits{1, 1.5f}, recent), 0);
}

TEST(SamplerTest, PenaltiesPassOverTokensOutsideTheVocabulary) {
  Sampler sampler({.presence_penalty = 1});
  const std::vector<Token> recent = {-1, 2, std::numeric_limits<Token>::max(), 0};
  EXPECT_EQ(sampler.Sample(Logits{1, 0.5f}, recent), 1);
  EXPECT_EQ(sampler.Sample(Logits{kNan, -kInf}, recent), 0);
}

TEST(SamplerTest, TheSeedDecides) {
  const Logits logits = RandomLogits(1000, 1, 1);
  for (const SamplingParams& base : {SamplingParams{.temperature = 1}, SamplingParams{.temperature = 1, .top_k = 100},
                                     SamplingParams{.temperature = 1, .top_p = 0.9f}}) {
    const auto draw = [&](uint64_t seed) {
      SamplingParams params = base;
      params.seed = seed;
      Sampler sampler(params);
      std::vector<Token> tokens(50);
      for (Token& token : tokens) token = sampler.Sample(logits, {});
      return tokens;
    };
    EXPECT_EQ(draw(0), draw(0));
    EXPECT_EQ(draw(42), draw(42));
    EXPECT_NE(draw(0), draw(1));
    EXPECT_NE(draw(1), draw(std::numeric_limits<uint64_t>::max()));
  }
}

TEST(SamplerTest, ExtremeLogitsAndTemperatures) {
  const Logits logits = {-3e38f, 3e38f, 0, -kInf, kNan};
  for (const float temperature : {std::numeric_limits<float>::denorm_min(), 1e-6f, 1.0f, 100.0f}) {
    for (const float top_p : {0.5f, 1.0f}) {
      Sampler sampler({.temperature = temperature, .top_p = top_p});
      for (int i = 0; i < 10; ++i) EXPECT_EQ(sampler.Sample(logits, {}), 1) << temperature;
    }
  }
  // The finite ones only, even where they are hopelessly small.
  EXPECT_THAT(Kept({}, {-kInf, -1e30f, kNan, -1e30f}), ElementsAre(1, 3));
  EXPECT_THAT(Kept({.top_p = 0.9f}, {-kInf, -1e30f, kNan, -1e30f}), ElementsAre(1, 3));
}

}  // namespace
}  // namespace loopserve
