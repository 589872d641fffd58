// Policies whose choice a mask can say, through the public API on a tiny model: held against a plain transformer with
// that mask, for any way of cutting a dialogue into turns.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>

#include "loopserve/engine.h"
#include "tests/support/plain_model.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

using Logits = std::vector<std::vector<float>>;  // by position

class MaskedDialogueTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::path(testing::TempDir()) / ("masked_" + std::to_string(getpid()) + ".gguf")).string();
    TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
    options.n_layers = 3;
    ASSERT_TRUE(WriteTinyGguf(options, path_).ok());
    EngineOptions engine;
    engine.model_path = path_;
    engine.threads = 2;
    engine.linear_path = LinearPath::kQuantized;  // f32 weights: sums in f32, on every CPU
    auto opened = Engine::Open(engine);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    engine_ = *opened;
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Session Open(const std::string& spec) {
    auto policy = Policy::Parse(spec);
    EXPECT_TRUE(policy.ok()) << policy.status().message();
    return engine_->NewSession(*policy);
  }

  static std::vector<Token> Tokens(size_t n, unsigned seed = 11) {
    std::mt19937 random(seed);
    std::vector<Token> tokens(n);
    for (Token& token : tokens) token = static_cast<Token>(random() % 256);
    return tokens;
  }

  /// All logits of the turns that end at `ends`.
  static Logits OfTurns(Session& session, std::span<const Token> tokens, const std::vector<size_t>& ends) {
    Logits logits;
    for (const size_t end : ends) {
      const auto stats = session.Sync(tokens.first(end), {}, [&](int64_t position, std::span<const float> row) {
        EXPECT_EQ(position, static_cast<int64_t>(logits.size()));
        logits.emplace_back(row.begin(), row.end());
      });
      EXPECT_TRUE(stats.ok()) << stats.status().message();
    }
    return logits;
  }

  Logits Plain(std::span<const Token> tokens, const PlainModel::Mask& mask) const {
    const std::unique_ptr<PlainModel> model = PlainModel::Load(path_);
    EXPECT_NE(model, nullptr);
    Logits logits;
    for (const Token token : tokens) logits.push_back(model->Append(token, mask));
    return logits;
  }
  static std::vector<bool> Everything(const PlainModel::Row& row, int) {
    return std::vector<bool>(static_cast<size_t>(row.position + 1), true);
  }

  static double Distance(const std::vector<float>& a, const std::vector<float>& b) {
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(double{a[i]} - b[i]));
    return worst;
  }
  static double Distance(const Logits& a, const Logits& b) {
    EXPECT_EQ(a.size(), b.size());
    double worst = 0;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) worst = std::max(worst, Distance(a[i], b[i]));
    return worst;
  }

  /// What the engine's rounding (f32 sums, keys that fall on another f16) moves logits by in dense attention; fewer
  /// keys average over fewer such errors, so sparse attention is allowed four times as much.
  double Tolerance(std::span<const Token> tokens) {
    Session dense = Open("dense");
    const double dense_distance = Distance(OfTurns(dense, tokens, {tokens.size()}), Plain(tokens, Everything));
    EXPECT_LT(dense_distance, 0.02) << "the plain model is the model";
    return 4 * dense_distance + 1e-5;
  }

  std::string path_;
  std::shared_ptr<Engine> engine_;
};

struct ShapeNumbers {
  int64_t sinks, local, last, reference;
  std::string Spec() const {
    const std::string common = "sinks=" + std::to_string(sinks) + ",local=" + std::to_string(local) +
                               ",reference=" + std::to_string(reference);
    return last == 0 ? "a_shape:" + common : "tri_shape:last=" + std::to_string(last) + "," + common;
  }
};

/// Rows of the turn that ends at n_keys; turns of up to eight tokens are computed as answers are.
PlainModel::Mask MaskOf(const ShapeNumbers& shape, const std::vector<size_t>& ends) {
  return [=](const PlainModel::Row& row, int) {
    std::vector<bool> attended(static_cast<size_t>(row.position + 1), true);
    const auto end = std::upper_bound(ends.begin(), ends.end(), static_cast<size_t>(row.position));
    const auto n_keys = static_cast<int64_t>(*end);
    const int64_t n_rows = n_keys - (end == ends.begin() ? 0 : static_cast<int64_t>(*(end - 1)));
    if (n_rows <= 8 || row.position >= n_keys - shape.last) return attended;
    const double share =
        std::min(1.0, static_cast<double>(n_keys) / static_cast<double>(std::max<int64_t>(1, shape.reference)));
    const double sinks = std::ceil(static_cast<double>(shape.sinks) * share);
    const double local = std::ceil(static_cast<double>(shape.local) * share);
    for (int64_t key = 0; key <= row.position; ++key) {
      attended[static_cast<size_t>(key)] =
          static_cast<double>(key) < sinks || static_cast<double>(row.position - key) < local;
    }
    return attended;
  };
}

TEST_F(MaskedDialogueTest, ShapesAreTheirMaskForAnyTurns) {
  const std::vector<Token> tokens = Tokens(400);
  const double tolerance = Tolerance(tokens);
  const Logits dense = Plain(tokens, Everything);
  const std::vector<std::vector<size_t>> kTurns = {{400}, {250, 400}, {200, 205, 217, 400}, {9, 30, 77, 301, 400}};
  for (const ShapeNumbers& shape :
       {ShapeNumbers{20, 64, 0, 512}, {0, 33, 0, 0}, {4, 96, 0, 0}, {20, 64, 30, 512}, {3, 40, 150, 256}}) {
    for (const std::vector<size_t>& ends : kTurns) {
      SCOPED_TRACE(shape.Spec() + " " + std::to_string(ends.size()) + " turns");
      const Logits expected = Plain(tokens, MaskOf(shape, ends));
      EXPECT_GT(Distance(expected, dense), 20 * tolerance) << "the mask matters";
      Session session = Open(shape.Spec());
      EXPECT_LT(Distance(OfTurns(session, tokens, ends), expected), tolerance);
      // Without the logits of every row the last layer computes one row only.
      Session last_row = Open(shape.Spec());
      for (const size_t end : ends) {
        ASSERT_TRUE(last_row.Sync(std::span(tokens).first(end)).ok());
        EXPECT_LT(Distance({last_row.logits().begin(), last_row.logits().end()}, expected[end - 1]), tolerance) << end;
      }
    }
  }
}

/// Quest's rule in the layers from `dense_layers` on, for rows of the answer. least_gap: the least distance of the last
/// page that is read from the first that is not.
PlainModel::Mask QuestMask(size_t n_pages, int dense_layers, int64_t first_answer_position, bool per_query_head,
                           double* least_gap) {
  return [=](const PlainModel::Row& row, int head) {
    const auto n_keys = static_cast<size_t>(row.position + 1);
    std::vector<bool> attended(n_keys, true);
    const size_t newest = (n_keys - 1) / 16;
    if (row.layer < dense_layers || row.position < first_answer_position || newest + 1 <= n_pages) return attended;
    std::vector<double> ranks(newest, -INFINITY);
    for (size_t h = 0; h < row.queries.size(); ++h) {
      if (per_query_head && h != static_cast<size_t>(head)) continue;
      std::vector<double> bounds(newest, 0.0);
      for (size_t page = 0; page < newest; ++page) {
        for (size_t i = 0; i < row.queries[h].size(); ++i) {
          double most = -INFINITY;  // of q * largest and q * least, which are the products of two of the keys
          for (size_t t = 16 * page; t < 16 * page + 16; ++t) {
            most = std::max(most, row.queries[h][i] * (*row.keys)[t][i]);
          }
          bounds[page] += most;
        }
      }
      const double largest = std::ranges::max(bounds);
      for (size_t page = 0; page < newest; ++page) ranks[page] = std::max(ranks[page], bounds[page] - largest);
    }
    std::vector<double> sorted = ranks;
    std::ranges::sort(sorted, std::greater<>());
    for (size_t t = 0; t < 16 * newest; ++t) attended[t] = ranks[t / 16] >= sorted[n_pages - 2];
    *least_gap = std::min(*least_gap, sorted[n_pages - 2] - sorted[n_pages - 1]);
    return attended;
  };
}

/// The logits before the first token of the answer, and after each.
Logits OfAnswer(Session& session, std::span<const Token> answer) {
  Logits logits;
  const auto stats = session.Replay(
      answer, {}, [&](int64_t, std::span<const float> row) { logits.emplace_back(row.begin(), row.end()); });
  EXPECT_TRUE(stats.ok()) << stats.status().message();
  logits.emplace_back(session.logits().begin(), session.logits().end());
  return logits;
}

TEST_F(MaskedDialogueTest, QuestIsItsMaskInAnswers) {
  // The second answer begins within its budget and grows beyond it.
  for (const auto& [budget, n_pages, n_prompt, n_tokens] : {std::tuple<int, size_t, size_t, size_t>{64, 4, 200, 212},
                                                            {70, 4, 50, 76},
                                                            {1, 3, 200, 210},
                                                            {240, 15, 230, 252}}) {
    for (const bool per_query_head : {false, true}) {
      for (const int dense_layers : {0, 1}) {
        const std::string spec = "quest:budget=" + std::to_string(budget) +
                                 ",dense_layers=" + std::to_string(dense_layers) +
                                 (per_query_head ? ",per_query_head=1" : "");
        SCOPED_TRACE(spec);
        // Tokens for which no page is read or left by a hair, which rounding would decide.
        std::vector<Token> tokens;
        Logits expected;
        double least_gap = 0;
        for (unsigned seed = 1; seed < 100 && least_gap < 0.02; ++seed) {
          tokens = Tokens(n_tokens, seed);
          least_gap = INFINITY;
          expected = Plain(
              tokens, QuestMask(n_pages, dense_layers, static_cast<int64_t>(n_prompt), per_query_head, &least_gap));
        }
        ASSERT_GE(least_gap, 0.02);
        expected.erase(expected.begin(), expected.begin() + static_cast<ptrdiff_t>(n_prompt) - 1);
        Logits plain_dense = Plain(tokens, Everything);
        plain_dense.erase(plain_dense.begin(), plain_dense.begin() + static_cast<ptrdiff_t>(n_prompt) - 1);
        const std::span<const Token> answer = std::span<const Token>(tokens).subspan(n_prompt);
        Session dense = Open("dense");
        ASSERT_TRUE(dense.Sync(std::span(tokens).first(n_prompt)).ok());
        const double tolerance = 4 * Distance(OfAnswer(dense, answer), plain_dense) + 1e-5;
        EXPECT_LT(tolerance, 0.08) << "the plain model is the model";
        EXPECT_GT(Distance(expected, plain_dense), 5 * tolerance) << "the mask matters";
        Session session = Open(spec);
        ASSERT_TRUE(session.Sync(std::span(tokens).first(n_prompt)).ok());
        Session fork = session.Fork();
        EXPECT_LT(Distance(OfAnswer(session, answer), expected), tolerance);
        EXPECT_LT(Distance(OfAnswer(fork, answer), expected), tolerance) << "of a fork";
      }
    }
  }
}

// A dialogue that was rewound, and goes on with other tokens, is the dialogue that had these from the start.
TEST_F(MaskedDialogueTest, QuestForgetsPagesThatWereRewound) {
  const std::vector<Token> tokens = Tokens(260);
  std::vector<Token> other = tokens;
  for (size_t i = 150; i < 210; ++i) other[i] = static_cast<Token>((other[i] + 101) % 256);
  const std::string spec = "quest:budget=64,dense_layers=1";
  const auto answer = [&](Session& session) {
    EXPECT_TRUE(session.Sync(std::span(tokens).first(210)).ok());
    return OfAnswer(session, std::span(tokens).subspan(210));
  };
  Session rewound = Open(spec);
  ASSERT_TRUE(rewound.Sync(std::span(other).first(210)).ok());
  ASSERT_TRUE(rewound.Replay(std::span(other).subspan(210)).ok());
  Session straight = Open(spec);
  EXPECT_LT(Distance(answer(rewound), answer(straight)), Tolerance(tokens));
}

}  // namespace
}  // namespace loopserve
