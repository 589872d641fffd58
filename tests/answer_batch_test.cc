// Answers that are written in shared steps: each is what it would be alone, to the last bit of its logits.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

constexpr const char* kPolicies[] = {
    "dense",
    "loopserve:min_keys=64,decode_min_keys=64,budget=64,recent=8",
    "paper:rows=32,min_keys=64,budget=64,interval=4",
    "snapkv:budget=128",
    "h2o:budget=128,when=every_turn",
    "quest:budget=64",
};

std::vector<Token> Tokens(int n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Token> tokens(static_cast<size_t>(n));
  for (Token& token : tokens) token = static_cast<Token>(random() % 256);
  return tokens;
}

/// A dialogue of its own policy, length, sampling and end.
struct Case {
  Policy policy;
  std::vector<Token> prompt;
  SamplingParams params;
};

Case MakeCase(unsigned i) {
  Case made{*Policy::Parse(kPolicies[i % std::size(kPolicies)]), Tokens(40 + static_cast<int>(61 * i % 700), i), {}};
  made.params.max_tokens = 3 + static_cast<int>(i * 5 % 17);
  made.params.ignore_end_of_text = true;
  made.params.temperature = i % 3 == 0 ? 0.8f : 0.0f;
  made.params.seed = i;
  return made;
}

/// An answer and what was seen of it: the logits of every step, and how it ended.
struct Written {
  std::string text;
  std::vector<std::vector<float>> logits;
  GenerationStats stats;
  bool ended = false;

  void Add(const AnswerStep& step, const Session& session) {
    text += step.text;
    logits.emplace_back(session.logits().begin(), session.logits().end());
    ended = step.ended;
  }
};

class AnswerBatchTest : public testing::TestWithParam<ggml_type> {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::path(testing::TempDir()) / ("batch_" + std::to_string(getpid()) + ".gguf")).string();
    Write(TinyModel(TinyFamily::kLlama));
  }
  void TearDown() override { std::filesystem::remove(path_); }
  void Write(TinyGgufOptions options) const {
    options.weight_type = GetParam();
    const Status status = WriteTinyGguf(options, path_);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  std::shared_ptr<Engine> Open(size_t kv_budget_bytes = 0, int threads = 1) const {
    EngineOptions options;
    options.model_path = path_;
    options.threads = threads;
    options.kv_budget_bytes = kv_budget_bytes;
    auto engine = Engine::Open(options);
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    return engine.ok() ? *engine : nullptr;
  }

  static Written WriteAlone(const Engine& engine, const Case& c, const RunControl& control = {}) {
    Session session = engine.NewSession(c.policy);
    EXPECT_TRUE(session.Sync(c.prompt).ok());
    auto answer = session.BeginAnswer(c.params, control);
    EXPECT_TRUE(answer.ok());
    Written written;
    while (answer.ok() && !written.ended) {
      const auto step = answer->Next();
      EXPECT_TRUE(step.ok()) << step.status().message();
      if (!step.ok()) break;
      written.Add(*step, session);
    }
    written.stats = answer->stats();
    return written;
  }

  /// Dialogues whose answers are stepped together.
  struct Dialogues {
    std::vector<std::unique_ptr<Session>> sessions;
    std::vector<std::unique_ptr<Answer>> answers;
    std::vector<Written> written;

    void Begin(const Engine& engine, const Case& c, const RunControl& control = {}) {
      sessions.push_back(std::make_unique<Session>(engine.NewSession(c.policy)));
      ASSERT_TRUE(sessions.back()->Sync(c.prompt).ok());
      auto answer = sessions.back()->BeginAnswer(c.params, control);
      ASSERT_TRUE(answer.ok()) << answer.status().message();
      answers.push_back(std::make_unique<Answer>(std::move(*answer)));
      written.emplace_back();
    }
    /// A step of all that have not ended; the statuses of those that took part, in order. False: none was taken.
    bool Step(const Engine& engine, std::vector<Status>* statuses = nullptr) {
      std::vector<Answer*> now;
      std::vector<size_t> which;
      for (size_t i = 0; i < answers.size(); ++i) {
        if (written[i].ended || answers[i] == nullptr) continue;
        now.push_back(answers[i].get());
        which.push_back(i);
      }
      const std::vector<Result<AnswerStep>> steps = engine.StepAnswers(now);
      EXPECT_EQ(steps.size(), now.size());
      if (statuses != nullptr) statuses->clear();
      for (size_t i = 0; i < steps.size(); ++i) {
        if (statuses != nullptr) {
          statuses->push_back(steps[i].status());
        } else {
          EXPECT_TRUE(steps[i].ok()) << steps[i].status().message();
        }
        if (steps[i].ok()) written[which[i]].Add(*steps[i], *sessions[which[i]]);
      }
      return std::ranges::any_of(steps, [](const auto& step) { return step.ok(); });
    }
  };

  static void ExpectSame(const Written& written, const Written& alone) {
    EXPECT_EQ(written.text, alone.text);
    ASSERT_EQ(written.logits.size(), alone.logits.size());
    for (size_t i = 0; i < alone.logits.size(); ++i) {
      ASSERT_TRUE(written.logits[i] == alone.logits[i]) << "the logits of step " << i << " differ";
    }
  }

  static void ExpectEachAsAlone(const Engine& engine, unsigned n_dialogues) {
    std::vector<Written> alone;
    Dialogues together;
    for (unsigned i = 0; i < n_dialogues; ++i) {
      alone.push_back(WriteAlone(engine, MakeCase(i)));
      together.Begin(engine, MakeCase(i));
    }
    while (together.Step(engine)) {
    }
    for (unsigned i = 0; i < n_dialogues; ++i) {
      SCOPED_TRACE("dialogue " + std::to_string(i) + " " + MakeCase(i).policy.ToString());
      ExpectSame(together.written[i], alone[i]);
      const GenerationStats stats = together.answers[i]->stats();
      EXPECT_EQ(stats.stop_reason, StopReason::kMaxTokens);
      EXPECT_EQ(stats.output_tokens, alone[i].stats.output_tokens);
      EXPECT_EQ(stats.decode_kv_fraction, alone[i].stats.decode_kv_fraction);
      EXPECT_EQ(together.sessions[i]->tokens().size(), MakeCase(i).prompt.size() + stats.output_tokens - 1);
    }
  }

  std::string path_;
};

TEST_P(AnswerBatchTest, EachIsWhatItWouldBeAlone) { ExpectEachAsAlone(*Open(), 19); }  // more than a step takes

class AnswerBatchThreadsTest : public AnswerBatchTest {};

TEST_P(AnswerBatchThreadsTest, EachIsWhatItWouldBeAlone) { ExpectEachAsAlone(*Open(0, 2), 3); }

TEST_P(AnswerBatchTest, EveryFamilyIsWhatItWouldBeAlone) {
  for (const NamedTinyModel& model : AllTinyModels()) {
    SCOPED_TRACE(model.name);
    Write(model.options);
    const auto engine = Open();
    std::vector<Written> alone;
    Dialogues together;
    for (unsigned i = 0; i < 5; ++i) {
      alone.push_back(WriteAlone(*engine, MakeCase(i)));
      together.Begin(*engine, MakeCase(i));
    }
    while (together.Step(*engine)) {
    }
    for (unsigned i = 0; i < 5; ++i) ExpectSame(together.written[i], alone[i]);
  }
}

TEST_P(AnswerBatchTest, OneWithoutMemoryDoesNotHoldUpTheOthers) {
  const size_t block_bytes = Open()->kv_block_bytes();
  const auto engine = Open(3 * block_bytes);
  std::vector<Case> cases{MakeCase(0), MakeCase(6), MakeCase(12)};  // dense
  cases[0].prompt = Tokens(100, 1);
  cases[1].prompt = Tokens(254, 2);  // needs a second block for the third token
  cases[2].prompt = Tokens(50, 3);
  for (Case& c : cases) c.params.max_tokens = 8;
  std::vector<Written> alone;
  for (const Case& c : cases) alone.push_back(WriteAlone(*Open(), c));
  Dialogues together;
  for (const Case& c : cases) together.Begin(*engine, c);
  std::vector<Status> statuses;
  int refused = 0;
  while (!(together.written[0].ended && together.written[2].ended)) {
    ASSERT_TRUE(together.Step(*engine, &statuses));
    ASSERT_TRUE(statuses.front().ok() && statuses.back().ok());
    if (statuses[1].ok()) continue;
    EXPECT_EQ(statuses[1].code(), StatusCode::kResourceExhausted);
    ++refused;
  }
  EXPECT_GT(refused, 3);
  EXPECT_FALSE(together.written[1].ended);
  together.answers[0].reset();
  together.sessions[0].reset();  // room
  while (together.Step(*engine)) {
  }
  EXPECT_TRUE(together.written[1].ended);
  for (size_t i = 0; i < cases.size(); ++i) ExpectSame(together.written[i], alone[i]);
}

TEST_P(AnswerBatchTest, CancelledOnesEndAndTheOthersGoOn) {
  const auto engine = Open();
  const Case stays = MakeCase(1), goes = MakeCase(7);
  const Written alone = WriteAlone(*engine, stays);
  std::atomic<bool> cancel{false};
  RunControl control;
  control.cancel = &cancel;
  Dialogues together;
  together.Begin(*engine, stays);
  together.Begin(*engine, goes, control);
  ASSERT_TRUE(together.Step(*engine));
  ASSERT_TRUE(together.Step(*engine));
  cancel.store(true);
  ASSERT_TRUE(together.Step(*engine));
  EXPECT_TRUE(together.written[1].ended);
  EXPECT_EQ(together.answers[1]->stats().stop_reason, StopReason::kCancelled);
  EXPECT_EQ(together.answers[1]->stats().output_tokens, 2);
  together.answers[1].reset();
  together.sessions[1].reset();
  while (together.Step(*engine)) {
  }
  ExpectSame(together.written[0], alone);
}

TEST_P(AnswerBatchTest, OnesThatCannotStepTogetherAreNamed) {
  const auto engine = Open(), other_engine = Open();
  Dialogues own, foreign;
  own.Begin(*engine, MakeCase(0));
  own.Begin(*engine, MakeCase(1));
  foreign.Begin(*other_engine, MakeCase(2));
  Answer* const answers[] = {own.answers[0].get(), foreign.answers[0].get(), own.answers[0].get(),
                             own.answers[1].get()};
  for (int step = 0; step < 2; ++step) {
    const auto steps = engine->StepAnswers(answers);
    ASSERT_EQ(steps.size(), 4u);
    EXPECT_TRUE(steps[0].ok() && steps[3].ok());
    EXPECT_EQ(steps[1].status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(steps[1].status().message(), "the answer is another engine's");
    EXPECT_EQ(steps[2].status().message(), "a session can step one answer at a time");
  }
  EXPECT_EQ(own.answers[0]->stats().output_tokens, 2);
  EXPECT_EQ(foreign.answers[0]->stats().output_tokens, 0);
  while (own.Step(*engine)) {
  }
  const auto after = engine->StepAnswers({answers, 1});
  EXPECT_EQ(after[0].status().message(), "the answer has ended");
  EXPECT_TRUE(engine->StepAnswers({}).empty());
}

TEST_P(AnswerBatchTest, MeasuredOnesSeeWhatTheySeeAlone) {
  const auto engine = Open();
  RunControl control;
  control.measure_quality = true;
  Dialogues together;
  std::vector<Written> alone;
  for (unsigned i = 1; i < 5; ++i) {
    Case c = MakeCase(i);
    c.prompt = Tokens(500, i);
    alone.push_back(WriteAlone(*engine, c, control));
    together.Begin(*engine, c, control);
  }
  while (together.Step(*engine)) {
  }
  for (size_t i = 0; i < alone.size(); ++i) {
    ExpectSame(together.written[i], alone[i]);
    EXPECT_TRUE(alone[i].stats.decode_coverage);
    EXPECT_EQ(together.answers[i]->stats().decode_coverage, alone[i].stats.decode_coverage);
  }
}

TEST_P(AnswerBatchTest, StepsAreTakenWhileAnotherSessionReads) {
  const auto engine = Open();
  const std::vector<Token> reading = Tokens(2500, 8);
  Session read_alone = engine->NewSession();
  ASSERT_TRUE(read_alone.Sync(reading).ok());
  std::vector<Written> alone;
  Dialogues together;
  for (unsigned i = 0; i < 4; ++i) {
    alone.push_back(WriteAlone(*engine, MakeCase(i)));
    together.Begin(*engine, MakeCase(i));
  }
  Session reader = engine->NewSession();
  int steps_in_between = 0;
  RunControl control;
  control.yield = [&] { steps_in_between += together.Step(*engine) ? 1 : 0; };
  ASSERT_TRUE(reader.Sync(reading, control).ok());
  EXPECT_GT(steps_in_between, 4);
  while (together.Step(*engine)) {
  }
  for (unsigned i = 0; i < 4; ++i) ExpectSame(together.written[i], alone[i]);
  EXPECT_TRUE(std::ranges::equal(reader.logits(), read_alone.logits()));
}

// Of q8_0 all rows go through the products together; of f32, which ggml multiplies, one by one.
INSTANTIATE_TEST_SUITE_P(Weights, AnswerBatchTest, testing::Values(GGML_TYPE_Q8_0, GGML_TYPE_Q4_1, GGML_TYPE_F32),
                         [](const auto& tested) { return std::string(ggml_type_name(tested.param)); });

INSTANTIATE_TEST_SUITE_P(Weights, AnswerBatchThreadsTest, testing::Values(GGML_TYPE_Q8_0));

}  // namespace
}  // namespace loopserve
