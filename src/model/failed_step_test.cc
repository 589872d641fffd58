// Steps that fail, for want of memory, and are made again: they must find what they would have found at once.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "src/base/memory_status.h"
#include "src/base/temp_dir.h"
#include "src/model/decode_sparsity.h"
#include "src/model/forward.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

constexpr int64_t kPrompt = 200;
constexpr int64_t kAnswer = 40;

class FailedStepTest : public ::testing::Test {
 protected:
  FailedStepTest() {
    TinyGgufOptions options;
    options.n_layers = 3;
    const std::string path = (dir_.path() / "tiny.gguf").string();
    EXPECT_TRUE(WriteTinyGguf(options, path).ok());
    model_ = Model::Load(GgufFile::Open(path).value()).value();
    threads_ = ComputeThreads::Create(2).value();
    forward_ = Forward::Create(*model_, *threads_, {}).value();
    std::mt19937 random(3);
    for (int64_t i = 0; i < kPrompt + kAnswer; ++i) tokens_.push_back(static_cast<Token>(random() % 256));
  }

  Dialogue Read(const std::string& spec) {
    const HyperParams& p = model_->params();
    const Policy policy = *Policy::Parse(spec);
    KvLayout layout;
    layout.n_layers = p.n_layers;
    layout.n_kv_heads = p.n_kv_heads;
    layout.head_dim = p.head_dim;
    Dialogue dialogue(KvCache(layout, nullptr), policy, RecentQueries(p.n_layers, NotedQueries(policy), p.q_width()));
    EXPECT_TRUE(Run(dialogue, kPrompt).ok());
    EXPECT_TRUE(forward_->BeginAnswer(dialogue, false, &stats_).ok());
    return dialogue;
  }
  /// The next n tokens; the logits of the last are in logits_.
  Status Run(Dialogue& dialogue, int64_t n) {
    const auto tokens =
        std::span(tokens_).subspan(static_cast<size_t>(dialogue.cache.n_tokens()), static_cast<size_t>(n));
    return forward_->Run(dialogue, tokens, {}, {}, &logits_, &stats_);
  }

  TempDir dir_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<ComputeThreads> threads_;
  std::unique_ptr<Forward> forward_;
  std::vector<Token> tokens_;
  std::vector<float> logits_;
  ForwardStats stats_;
};

TEST_F(FailedStepTest, KeysThatWereChosenForAStepThatFailedAreChosenForTheNext) {
  for (const char* spec : {"paper:alpha=1,budget=32,interval=4", "paper:alpha=1,budget=32,interval=2",
                           "loopserve:alpha=1,budget=96,decode_min_keys=0"}) {
    SCOPED_TRACE(spec);
    DecodeSparsity sparsity(*model_, *threads_);
    DecodeSparsity::StepKeys keys(model_->params(), threads_->n_threads());
    Dialogue undisturbed = Read(spec), failing = Read(spec);
    for (int64_t i = 0; i < kAnswer; ++i) {
      ASSERT_TRUE(Run(undisturbed, 1).ok());
      const std::vector<float> expected = logits_;
      double selection_ms = 0;
      for (int64_t attempt = 0; attempt < i % 3; ++attempt) {
        ASSERT_TRUE(sparsity.BeginStep(failing, &keys, &selection_ms).ok());
      }
      ASSERT_TRUE(Run(failing, 1).ok());
      ASSERT_EQ(logits_, expected) << "token " << i;
    }
  }
}

TEST_F(FailedStepTest, AChoiceThatIsRememberedStaysRemembered) {
  KvLayout layout;
  layout.n_layers = layout.n_kv_heads = 1;
  layout.head_dim = 8;
  KeptKeys kept(layout);
  kept.Add({10, {{0, 3, 9}}, {{1.0f, 2.0f, 3.0f}}}, RecentQueries(1, 4, 8));
  kept.Truncate(9, 10);
  kept.ForgetRows(9);
  EXPECT_TRUE(kept.Resume(10));
  ASSERT_EQ(kept.column_sums(0, 0).size(), 3u);
  EXPECT_EQ(kept.column_sums(0, 0)[1], 2.0f);
}

TEST(OrOutOfMemory, MemoryThatIsNotThereIsAStatus) {
  const Status failed = OrOutOfMemory("a test", []() -> Status { throw std::bad_alloc(); });
  EXPECT_EQ(failed.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(failed.message(), "not enough memory for a test");
  EXPECT_TRUE(OrOutOfMemory("a test", [] { return Status::Ok(); }).ok());
}

}  // namespace
}  // namespace loopserve
