// The attention inspector through the public API on tiny models: it sees what a policy computes, and changes nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "loopserve/engine.h"
#include "loopserve/inspect.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

class InspectDialogueTest : public testing::TestWithParam<TinyFamily> {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::path(testing::TempDir()) / ("inspect_" + std::to_string(getpid()) + ".gguf")).string();
    TinyGgufOptions options = TinyModel(GetParam());
    options.context_tokens = 4096;
    ASSERT_TRUE(WriteTinyGguf(options, path_).ok());
    EngineOptions engine;
    engine.model_path = path_;
    engine.threads = 2;
    engine.linear_path = LinearPath::kQuantized;  // attention in f32, as the inspector computes it
    auto opened = Engine::Open(engine);
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    engine_ = *opened;
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Session Open(const char* spec) { return engine_->NewSession(*Policy::Parse(spec)); }

  static std::vector<Token> Tokens(int n) {
    std::mt19937 random(1);
    std::vector<Token> tokens(static_cast<size_t>(n));
    for (Token& token : tokens) token = static_cast<Token>(random() % 256);
    return tokens;
  }

  static Result<SyncStats> Sync(Session& session, std::span<const Token> tokens, AttentionInspector* inspector) {
    RunControl control;
    control.inspector = inspector;
    return session.Sync(tokens, control);
  }

  size_t GlobalLayers() const {
    return static_cast<size_t>(std::ranges::count(engine_->model().layer_windows, int64_t{0}));
  }

  std::string path_;
  std::shared_ptr<Engine> engine_;
};

TEST_P(InspectDialogueTest, SeesEveryTurnAndChangesNothing) {
  const std::vector<Token> tokens = Tokens(600);
  Session plain = Open("dense"), inspected = Open("dense");
  AttentionInspector inspector;
  for (const size_t n : {200, 260, 600}) {  // the second turn is too short to look at
    ASSERT_TRUE(Sync(plain, std::span(tokens).first(n), nullptr).ok());
    ASSERT_TRUE(Sync(inspected, std::span(tokens).first(n), &inspector).ok());
    EXPECT_TRUE(std::ranges::equal(plain.logits(), inspected.logits())) << "bit for bit";
  }
  ASSERT_EQ(inspector.turns.size(), 2u);
  EXPECT_EQ(inspector.turns[1].first_position, 260);
  EXPECT_EQ(inspector.turns[1].n_rows, 340);
  for (const TurnAttention& turn : inspector.turns) {
    ASSERT_EQ(turn.layers.size(), GlobalLayers());  // the last layer too, of which prefill needs one row only
    for (const LayerAttention& layer : turn.layers) {
      EXPECT_EQ(engine_->model().layer_windows[static_cast<size_t>(layer.layer)], 0);
      ASSERT_EQ(layer.heads.size(), static_cast<size_t>(engine_->model().n_heads));
      for (const HeadAttention& head : layer.heads) {
        EXPECT_GE(head.sampled_coverage, 0.9549);
        EXPECT_GT(head.density, 0.0);
        EXPECT_LE(head.density, 1.0);
        EXPECT_LE(head.floor, head.density + 1e-3);
        ASSERT_TRUE(head.heldout_coverage.has_value());
        EXPECT_EQ(head.coverage_by_last_lines.has_value(), &turn != &inspector.turns[0]);
      }
    }
  }
}

// The policy "paper" makes the same choice of the same rows: its density is the mean of the heads'.
TEST_P(InspectDialogueTest, SeesTheChoiceOfThePolicyPaper) {
  const std::vector<Token> tokens = Tokens(900);
  Session session = Open("paper:alpha=0.7,rows=64,seed=5");
  AttentionInspector inspector;
  inspector.options = {.alpha = 0.7, .sample_rows = 64, .seed = 5};
  RunControl control;
  control.inspector = &inspector;
  // With the logits of all rows the last layer's attention is computed in full.
  const auto stats = session.Sync(tokens, control, [](int64_t, std::span<const float>) {});
  ASSERT_TRUE(stats.ok()) << stats.status().message();
  double density = 0;
  for (const LayerAttention& layer : inspector.turns.at(0).layers) {
    for (const HeadAttention& head : layer.heads) density += head.density / static_cast<double>(layer.heads.size());
  }
  const auto n_layers = static_cast<double>(engine_->model().n_layers);
  const auto dense_layers = n_layers - static_cast<double>(GlobalLayers());
  EXPECT_NEAR(*stats->prefill_density, (density + dense_layers) / n_layers, 1e-9);
  EXPECT_LT(*stats->prefill_density, 1.0);
}

TEST_P(InspectDialogueTest, LooksAtTheLayerAndHeadAskedFor) {
  const auto layer = static_cast<int>(std::ranges::find(engine_->model().layer_windows, int64_t{0}) -
                                      engine_->model().layer_windows.begin());
  Session session = Open("dense");
  AttentionInspector inspector;
  inspector.options.layer = layer;
  inspector.options.map_head = 1;
  inspector.options.map_cells = 32;
  ASSERT_TRUE(Sync(session, Tokens(300), &inspector).ok());
  ASSERT_EQ(inspector.turns.size(), 1u);
  ASSERT_EQ(inspector.turns[0].layers.size(), 1u);
  EXPECT_EQ(inspector.turns[0].layers[0].layer, layer);
  ASSERT_TRUE(inspector.turns[0].map.has_value());
  const AttentionMap& map = *inspector.turns[0].map;
  ASSERT_EQ(map.weight.size(), 32u * 32u);
  for (size_t row = 0; row < 32; ++row) {
    double sum = 0;
    for (size_t c = 0; c < 32; ++c) sum += map.weight[row * 32 + c];
    EXPECT_NEAR(sum, 1.0, 1e-4);
  }
}

TEST_P(InspectDialogueTest, ErrorsLeaveTheSessionAndTheInspectorAsTheyWere) {
  Session session = Open("dense");
  AttentionInspector inspector;
  inspector.options.layer = 99;
  const auto out_of_range = Sync(session, Tokens(100), &inspector);
  EXPECT_EQ(out_of_range.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(out_of_range.status().message(), testing::HasSubstr("not 99"));
  inspector.options = {.alpha = 2};
  EXPECT_EQ(Sync(session, Tokens(100), &inspector).status().code(), StatusCode::kInvalidArgument);
  const auto sliding = std::ranges::find_if(engine_->model().layer_windows, [](int64_t w) { return w > 0; });
  if (sliding != engine_->model().layer_windows.end()) {
    inspector.options = {.layer = static_cast<int>(sliding - engine_->model().layer_windows.begin())};
    EXPECT_EQ(Sync(session, Tokens(100), &inspector).status().code(), StatusCode::kUnsupported);
  }
  std::atomic<bool> cancel{false};
  RunControl control;
  inspector.options = {};
  control.inspector = &inspector;
  control.cancel = &cancel;
  control.on_progress = [&](double) { cancel = true; };
  EXPECT_EQ(session.Sync(Tokens(100), control).status().code(), StatusCode::kCancelled);
  EXPECT_TRUE(session.tokens().empty());
  EXPECT_TRUE(inspector.turns.empty());
}

INSTANTIATE_TEST_SUITE_P(Families, InspectDialogueTest, testing::Values(TinyFamily::kQwen2, TinyFamily::kGemma3),
                         [](const auto& family) { return family.param == TinyFamily::kQwen2 ? "Qwen2" : "Gemma3"; });

}  // namespace
}  // namespace loopserve
