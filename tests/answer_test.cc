// Answers written step by step, several at once and while another session reads a prompt: each is what it would be
// alone.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <random>
#include <utility>

#include "loopserve/engine.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

constexpr int kAnswerTokens = 40;

class AnswerTest : public testing::TestWithParam<const char*> {
 protected:
  static void SetUpTestSuite() {
    path_ = (std::filesystem::path(testing::TempDir()) / ("answer_" + std::to_string(getpid()) + ".gguf")).string();
    ASSERT_TRUE(WriteTinyGguf(TinyModel(TinyFamily::kLlama), path_).ok());
  }
  static void TearDownTestSuite() { std::filesystem::remove(path_); }

  static std::shared_ptr<Engine> Open(size_t kv_budget_bytes = 0, size_t weight_cache_bytes = size_t{256} << 20) {
    EngineOptions options;
    options.model_path = path_;
    options.threads = 1;
    options.kv_budget_bytes = kv_budget_bytes;
    options.weight_cache_bytes = weight_cache_bytes;
    auto engine = Engine::Open(options);
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    return engine.ok() ? *engine : nullptr;
  }

  static std::vector<Token> Tokens(int n, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<Token> tokens(static_cast<size_t>(n));
    for (Token& token : tokens) token = static_cast<Token>(random() % 256);
    return tokens;
  }

  static SamplingParams Params(unsigned seed) {
    SamplingParams params;
    params.max_tokens = kAnswerTokens;
    params.ignore_end_of_text = true;
    params.temperature = seed % 2 == 0 ? 0.0f : 0.9f;
    params.seed = seed;
    return params;
  }

  Session Open(const Engine& engine) const { return engine.NewSession(*Policy::Parse(GetParam())); }

  struct Alone {
    std::string text;
    std::vector<float> logits;  ///< after the prompt
  };
  Alone AnswerAlone(const Engine& engine, std::span<const Token> prompt, unsigned seed) const {
    Session session = Open(engine);
    EXPECT_TRUE(session.Sync(prompt).ok());
    Alone alone{{}, {session.logits().begin(), session.logits().end()}};
    const auto stats = session.Generate(Params(seed));
    EXPECT_TRUE(stats.ok());
    if (stats.ok()) alone.text = stats->text;
    return alone;
  }

  static std::string path_;
};
std::string AnswerTest::path_;

TEST_P(AnswerTest, InterleavedAnswersAreThoseGivenAlone) {
  const auto engine = Open();
  constexpr unsigned kDialogues = 4;
  std::vector<Session> sessions;
  std::vector<Answer> answers;
  std::vector<std::string> texts(kDialogues), alone;
  for (unsigned i = 0; i < kDialogues; ++i) {
    const std::vector<Token> prompt = Tokens(300 + 37 * static_cast<int>(i), i);
    alone.push_back(AnswerAlone(*engine, prompt, i).text);
    sessions.push_back(Open(*engine));
    ASSERT_TRUE(sessions.back().Sync(prompt).ok());
  }
  for (unsigned i = 0; i < kDialogues; ++i) {
    auto answer = sessions[i].BeginAnswer(Params(i));
    ASSERT_TRUE(answer.ok());
    answers.push_back(std::move(*answer));
  }
  for (int step = 0; step < kAnswerTokens; ++step) {
    for (unsigned i = 0; i < kDialogues; ++i) {
      const auto next = answers[i].Next();
      ASSERT_TRUE(next.ok()) << next.status().message();
      EXPECT_EQ(next->ended, step == kAnswerTokens - 1);
      texts[i] += next->text;
    }
  }
  EXPECT_EQ(texts, alone);
  EXPECT_EQ(answers[0].stats().output_tokens, kAnswerTokens);
  EXPECT_EQ(answers[0].Next().status().code(), StatusCode::kInvalidArgument);
}

TEST_P(AnswerTest, StepsAreTakenWhileAnotherSessionReads) {
  const auto engine = Open();
  const std::vector<Token> writing = Tokens(400, 7), reading = Tokens(2500, 8);
  const std::string alone = AnswerAlone(*engine, writing, 7).text;
  const Alone read_alone = AnswerAlone(*engine, reading, 8);

  Session writer = Open(*engine), reader = Open(*engine);
  ASSERT_TRUE(writer.Sync(writing).ok());
  auto answer = writer.BeginAnswer(Params(7));
  ASSERT_TRUE(answer.ok());
  std::string text;
  int steps_in_between = 0;
  bool ended = false;
  const auto step = [&] {
    if (ended) return;
    const auto next = answer->Next();
    ASSERT_TRUE(next.ok()) << next.status().message();
    text += next->text;
    ended = next->ended;
  };
  RunControl control;
  control.yield = [&] {
    ++steps_in_between;
    step();
  };
  ASSERT_TRUE(reader.Sync(reading, control).ok());
  EXPECT_GT(steps_in_between, 4);
  while (!ended) step();
  EXPECT_EQ(text, alone);
  EXPECT_EQ(std::vector<float>(reader.logits().begin(), reader.logits().end()), read_alone.logits);
  const auto stats = reader.Generate(Params(8));
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->text, read_alone.text);
}

TEST_P(AnswerTest, PromptsAreReadInTheYieldOfLongerOnes) {
  // With the packed weights of all layers kept, and of none: then what is read in between takes their place.
  for (const size_t weight_cache_bytes : {size_t{256} << 20, size_t{0}}) {
    const auto engine = Open(0, weight_cache_bytes);
    const std::vector<std::vector<Token>> prompts{Tokens(2500, 9), Tokens(700, 4), Tokens(300, 5)};
    std::vector<Alone> alone;
    for (unsigned i = 0; i < prompts.size(); ++i) alone.push_back(AnswerAlone(*engine, prompts[i], i));
    std::vector<Session> sessions;
    for (size_t i = 0; i < prompts.size(); ++i) sessions.push_back(Open(*engine));
    std::vector<int> yields(prompts.size());
    const std::function<void(size_t)> read = [&](size_t i) {
      RunControl control;
      control.yield = [&, i] {
        // In the midst of the first layer; then at once.
        if (++yields[i] == (i == 0 ? 14 : 1) && i + 1 < prompts.size()) read(i + 1);
      };
      ASSERT_TRUE(sessions[i].Sync(prompts[i], control).ok());
    };
    read(0);
    for (unsigned i = 0; i < prompts.size(); ++i) {
      EXPECT_EQ(std::vector<float>(sessions[i].logits().begin(), sessions[i].logits().end()), alone[i].logits);
      const auto stats = sessions[i].Generate(Params(i));
      ASSERT_TRUE(stats.ok());
      EXPECT_EQ(stats->text, alone[i].text);
    }
  }
}

TEST_P(AnswerTest, OnlySoManyPromptsAreReadAtOnce) {
  const auto engine = Open();
  std::vector<Session> sessions;
  for (int i = 0; i < 4; ++i) sessions.push_back(Open(*engine));
  std::vector<StatusCode> codes(4);
  const std::function<void(size_t)> read = [&](size_t i) {
    bool first = true;
    RunControl control;
    control.yield = [&, i] {
      if (std::exchange(first, false) && i < 3) read(i + 1);
      if (i != 2) return;
      EXPECT_EQ(sessions[1].Sync(Tokens(5, 4)).status().code(), StatusCode::kInvalidArgument) << "it is reading";
      EXPECT_EQ(sessions[1].Generate({}).status().code(), StatusCode::kInvalidArgument);
      EXPECT_TRUE(sessions[3].Sync(Tokens(8, 4)).ok()) << "few tokens are no prefill";
    };
    codes[i] = sessions[i].Sync(Tokens(600 - 100 * static_cast<int>(i), 3), control).status().code();
  };
  read(0);
  EXPECT_EQ(codes, (std::vector{StatusCode::kOk, StatusCode::kOk, StatusCode::kOk, StatusCode::kInvalidArgument}));
  EXPECT_TRUE(sessions[3].Sync(Tokens(300, 4)).ok()) << "afterwards everything goes on";
}

INSTANTIATE_TEST_SUITE_P(Policies, AnswerTest,
                         testing::Values("dense", "loopserve:min_keys=64,decode_min_keys=64,budget=64,recent=8",
                                         "paper:rows=32,min_keys=64,budget=64,interval=4", "snapkv:budget=128",
                                         "h2o:budget=128,when=every_turn"),
                         [](const auto& tested) {
                           const std::string spec = tested.param;
                           return spec.substr(0, spec.find(':'));
                         });

class AnswerStepsTest : public AnswerTest {};
INSTANTIATE_TEST_SUITE_P(Dense, AnswerStepsTest, testing::Values("dense"));

TEST_P(AnswerStepsTest, AStepWithoutMemoryIsTriedAgain) {
  const size_t block_bytes = Open()->kv_block_bytes();
  const std::vector<Token> prompt = Tokens(255, 2);
  const std::string alone = AnswerAlone(*Open(), prompt, 2).text;
  const auto engine = Open(2 * block_bytes);
  std::optional<Session> idle = Open(*engine);
  ASSERT_TRUE(idle->Sync(Tokens(10, 1)).ok());
  Session session = Open(*engine);
  ASSERT_TRUE(session.Sync(prompt).ok());
  EXPECT_EQ(engine->kv_used_bytes(), 2 * block_bytes);
  auto answer = session.BeginAnswer(Params(2));
  ASSERT_TRUE(answer.ok());
  std::string text;
  int refused = 0;
  for (bool ended = false; !ended;) {
    const auto next = answer->Next();
    if (!next.ok()) {
      ASSERT_EQ(next.status().code(), StatusCode::kResourceExhausted);
      if (++refused == 2) idle.reset();
      ASSERT_LE(refused, 2);
      continue;
    }
    text += next->text;
    ended = next->ended;
  }
  EXPECT_EQ(refused, 2);
  EXPECT_EQ(text, alone);
}

TEST_P(AnswerStepsTest, StoppingGivesTheTextThatWasHeldBack) {
  const auto engine = Open();
  Session session = Open(*engine);
  ASSERT_TRUE(session.Sync(Tokens(64, 1)).ok());
  auto answer = session.BeginAnswer(Params(2));
  ASSERT_TRUE(answer.ok());
  std::string text;
  for (int i = 0; i < 5; ++i) text += answer->Next()->text;
  const AnswerStep last = *answer->Stop();
  EXPECT_TRUE(last.ended);
  EXPECT_EQ(answer->stats().text, text + last.text);
  EXPECT_EQ(answer->stats().stop_reason, StopReason::kCancelled);
  EXPECT_EQ(answer->stats().output_tokens, 5);
  EXPECT_EQ(session.tokens().size(), 64u + 4);
}

}  // namespace
}  // namespace loopserve
