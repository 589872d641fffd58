#include "src/server/scheduler.h"

#include <gtest/gtest.h>

#include <regex>

#include "src/server/test_scheduler.h"

namespace loopserve::server {
namespace {

TEST_P(SchedulerTest, ManyAtOnceGiveWhatEachGivesAlone) {
  const auto engine = model_.Open();
  std::vector<JobSpec> specs;
  std::vector<std::string> alone;
  for (unsigned i = 0; i < 24; ++i) {
    JobSpec spec = Spec(TestTokens(i % 5 == 0 ? 2500 : 100 + 11 * static_cast<int>(i), i), 20 + static_cast<int>(i));
    spec.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    spec.sampling.seed = i;
    alone.push_back(Alone(*engine, spec));
    specs.push_back(spec);
  }
  Scheduler scheduler(engine, {.max_running = 10}, nullptr);
  const auto channels = SubmitAll(scheduler, specs);
  for (size_t i = 0; i < specs.size(); ++i) {
    SCOPED_TRACE(i);
    const Outcome outcome = Wait(*channels[i]);
    ASSERT_FALSE(outcome.error) << outcome.error->message;
    EXPECT_EQ(outcome.texts[0], alone[i]);
    EXPECT_EQ(outcome.read->stats.cached_tokens, 0);
  }
}

TEST_P(SchedulerTest, SeveralAnswersToOnePrompt) {
  const auto engine = model_.Open();
  JobSpec spec = Spec(TestTokens(300, 1), 12);
  spec.sampling.temperature = 1;
  spec.sampling.seed = 5;
  spec.n = 3;
  std::vector<std::string> alone;
  for (int i = 0; i < 3; ++i) {
    JobSpec one = spec;
    one.sampling.seed += static_cast<uint64_t>(i);
    alone.push_back(Alone(*engine, one));
  }
  Scheduler scheduler(engine, {}, nullptr);
  const auto channel = std::make_shared<JobChannel>();
  ASSERT_FALSE(scheduler.Submit(spec, channel));
  const Outcome outcome = Wait(*channel, 3);
  EXPECT_TRUE(outcome.done);
  EXPECT_EQ(outcome.texts, alone);
}

TEST_P(SchedulerTest, AnswersWithAFormShareStepsWithFreeOnes) {
  const auto engine = model_.Open();
  std::vector<JobSpec> specs;
  std::vector<std::string> alone;
  for (unsigned i = 0; i < 9; ++i) {
    JobSpec spec = Spec(TestTokens(150 + static_cast<int>(i), i), 40);
    if (i % 3 == 1) spec.sampling.form.grammar = "root ::= [a-z]{2,5} (\" \" [a-z]{2,5}){3} [.!?]\n";
    if (i % 3 == 2) spec.sampling.form.grammar = "root ::= [0-9]{20} \"a\"\n";
    spec.sampling.temperature = i < 6 ? 0.0f : 1.0f;
    spec.sampling.seed = i;
    alone.push_back(Alone(*engine, spec));
    specs.push_back(spec);
  }
  Scheduler scheduler(engine, {}, nullptr);
  const auto channels = SubmitAll(scheduler, specs);
  const char* const forms[] = {"[^]*", "[a-z]{2,5}( [a-z]{2,5}){3}[.!?]", "[0-9]{20}a"};
  for (size_t i = 0; i < specs.size(); ++i) {
    SCOPED_TRACE(i);
    const Outcome outcome = Wait(*channels[i]);
    ASSERT_FALSE(outcome.error) << outcome.error->message;
    EXPECT_EQ(outcome.texts[0], alone[i]);
    EXPECT_TRUE(std::regex_match(outcome.texts[0], std::regex(forms[i % 3]))) << outcome.texts[0];
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, SchedulerTest, testing::Values("dense", kSparsePolicy),
                         [](const auto& tested) { return tested.param[0] == 'd' ? "dense" : "loopserve"; });

class SchedulerLimitsTest : public SchedulerTest {};
INSTANTIATE_TEST_SUITE_P(Dense, SchedulerLimitsTest, testing::Values("dense"));

TEST_P(SchedulerLimitsTest, AnswersGoOnWhileALongPromptIsRead) {
  const TestModel patient(32768);
  Scheduler scheduler(patient.Open(), {}, nullptr);
  const auto channel = std::make_shared<JobChannel>();  // of both, so that the order of events is known
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(50, 1), 4000), channel));
  while (!std::holds_alternative<AnswerDelta>(*channel->Wait(kLong))) {
  }
  JobSpec reader = Spec(TestTokens(30'000, 2), 1);  // hundreds of chunks
  reader.policy = *Policy::Parse(kSparsePolicy);
  reader.first_choice = 1;
  while (channel->Wait(std::chrono::milliseconds(0))) {
  }
  ASSERT_FALSE(scheduler.Submit(reader, channel));
  int tokens_meanwhile = 0;
  for (;;) {
    const std::optional<JobEvent> event = channel->Wait(kLong);
    ASSERT_TRUE(event);
    if (std::holds_alternative<PromptRead>(*event)) break;
    tokens_meanwhile += std::holds_alternative<AnswerDelta>(*event) ? 1 : 0;
  }
  EXPECT_GT(tokens_meanwhile, 4) << "without turns it would be the one or two before the prompt's turn came";
  channel->Cancel();
}

TEST_P(SchedulerLimitsTest, TheQueueIsLimitedAndFollowsPriorities) {
  Scheduler scheduler(model_.Open(), {.max_running = 1, .max_waiting = 2}, nullptr);
  const auto running = std::make_shared<JobChannel>();
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(50, 1), 4000), running));
  while (!std::holds_alternative<AnswerDelta>(*running->Wait(kLong))) {
  }
  const auto low = std::make_shared<JobChannel>(), high = std::make_shared<JobChannel>();
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(50, 2), 3), low));
  JobSpec urgent = Spec(TestTokens(50, 3), 3);
  urgent.priority = 1;
  ASSERT_FALSE(scheduler.Submit(urgent, high));
  const auto refused = scheduler.Submit(Spec(TestTokens(50, 4), 3), std::make_shared<JobChannel>());
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->http_status, 429);
  EXPECT_GT(refused->retry_after_s, 0);
  running->Cancel();
  EXPECT_TRUE(Wait(*high).done);
  EXPECT_TRUE(Wait(*low).done);
}

TEST_P(SchedulerLimitsTest, TimeIsUpInTheQueueAndInTheAnswer) {
  Scheduler scheduler(model_.Open(), {.max_running = 1}, nullptr);
  const auto running = std::make_shared<JobChannel>(), waiting = std::make_shared<JobChannel>();
  JobSpec endless = Spec(TestTokens(50, 1), 4000);
  endless.timeout = std::chrono::milliseconds(300);
  JobSpec short_lived = Spec(TestTokens(50, 2), 3);
  short_lived.timeout = std::chrono::milliseconds(20);
  ASSERT_FALSE(scheduler.Submit(endless, running));
  while (!std::holds_alternative<AnswerDelta>(*running->Wait(kLong))) {
  }
  ASSERT_FALSE(scheduler.Submit(short_lived, waiting));
  const Outcome queued = Wait(*waiting);
  ASSERT_TRUE(queued.error);
  EXPECT_EQ(queued.error->code, "timeout");
  const Outcome written = Wait(*running);
  // A fast machine writes 4,000 tokens of the tiny model in time.
  if (written.error) {
    EXPECT_EQ(written.error->http_status, 504);
  }
}

TEST_P(SchedulerLimitsTest, ABudgetIsKeptByDroppingAndByWaiting) {
  const size_t block = model_.Open()->kv_block_bytes();
  const auto engine = model_.Open(4 * block);
  Scheduler scheduler(engine, {.pool = {.kv_budget_bytes = 4 * block}}, nullptr);
  std::vector<std::shared_ptr<JobChannel>> channels;
  std::vector<JobSpec> specs;
  for (unsigned i = 0; i < 8; ++i) {
    specs.push_back(Spec(TestTokens(500, i), 60));  // three blocks with the answer: two do not fit side by side
    channels.push_back(std::make_shared<JobChannel>());
    ASSERT_FALSE(scheduler.Submit(specs.back(), channels.back()));
  }
  for (unsigned i = 0; i < 8; ++i) {
    const Outcome outcome = Wait(*channels[i]);
    ASSERT_FALSE(outcome.error) << outcome.error->message;
    EXPECT_EQ(outcome.texts[0], Alone(*model_.Open(), specs[i]));
  }
  const auto refused = scheduler.Submit(Spec(TestTokens(1100, 1), 3), std::make_shared<JobChannel>());
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code, "context_length_exceeded");
  EXPECT_EQ(refused->http_status, 400);
}

TEST_P(SchedulerLimitsTest, AnswersThatFillTheBudgetTogetherDoNotHang) {
  const size_t block = model_.Open()->kv_block_bytes();
  Scheduler scheduler(model_.Open(4 * block), {.pool = {.kv_budget_bytes = 4 * block}}, nullptr);
  std::vector<std::shared_ptr<JobChannel>> channels;
  for (unsigned i = 0; i < 3; ++i) {
    JobSpec spec = Spec(TestTokens(100, i), -1);  // to the end of the context, which is longer than the budget
    channels.push_back(std::make_shared<JobChannel>());
    ASSERT_FALSE(scheduler.Submit(spec, channels.back()));
  }
  for (const auto& channel : channels) {
    const Outcome outcome = Wait(*channel);
    ASSERT_TRUE(outcome.error);
    EXPECT_EQ(outcome.error->http_status, 503);
  }
  const auto after = std::make_shared<JobChannel>();
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(100, 9), 5), after));
  EXPECT_TRUE(Wait(*after).done);
}

TEST_P(SchedulerLimitsTest, ACancelledPromptFreesItsPlace) {
  Scheduler scheduler(model_.Open(), {.max_running = 1}, nullptr);
  const auto gone = std::make_shared<JobChannel>(), next = std::make_shared<JobChannel>();
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(4000, 1), 90), gone));
  gone->Cancel();
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(50, 2), 3), next));
  EXPECT_TRUE(Wait(*next).done);
}

TEST_P(SchedulerLimitsTest, StoppingLetsAnswersEndOrFailsThem) {
  for (const bool patient : {true, false}) {
    Scheduler scheduler(model_.Open(), {.max_running = 1}, nullptr);
    const auto running = std::make_shared<JobChannel>(), waiting = std::make_shared<JobChannel>();
    ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(50, 1), patient ? 50 : 4000), running));
    while (!std::holds_alternative<AnswerDelta>(*running->Wait(kLong))) {
    }
    ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(50, 2), 3), waiting));
    scheduler.Stop(patient ? std::chrono::milliseconds(60'000) : std::chrono::milliseconds(0));
    EXPECT_EQ(Wait(*running).done, patient);
    const Outcome refused = Wait(*waiting);
    ASSERT_TRUE(refused.error);
    EXPECT_EQ(refused.error->http_status, 503);
    EXPECT_TRUE(scheduler.Submit(Spec(TestTokens(50, 2), 3), waiting));
    EXPECT_FALSE(scheduler.OnEngineThread([](SessionPool&) {}));
  }
}

}  // namespace
}  // namespace loopserve::server
