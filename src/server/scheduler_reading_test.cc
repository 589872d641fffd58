// Prompts on their way: shorter ones are read within longer ones, and what nobody waits for any more ends.
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <thread>

#include "src/server/test_scheduler.h"

namespace loopserve::server {
namespace {

class SchedulerReadingTest : public SchedulerTest {
 protected:
  /// The next event, which there is.
  static JobEvent Next(JobChannel& channel) {
    std::optional<JobEvent> event = channel.Wait(kLong);
    if (!event) ADD_FAILURE() << "nothing came";
    return event ? std::move(*event) : JobEvent(JobDone{});
  }
  /// The numbers of the jobs on a shared channel, 1 and on, in the order in which they ended.
  static std::vector<int> OrderOfEnds(JobChannel& channel, size_t n_jobs, std::vector<std::string>* texts,
                                      std::vector<PromptRead>* reads) {
    std::vector<int> order;
    texts->resize(n_jobs);
    while (order.size() < n_jobs) {
      const JobEvent event = Next(channel);
      if (const auto* read = std::get_if<PromptRead>(&event)) reads->push_back(*read);
      const auto* delta = std::get_if<AnswerDelta>(&event);
      if (const auto* failed = std::get_if<JobFailed>(&event)) {
        ADD_FAILURE() << failed->error.message;
        break;
      }
      if (delta == nullptr) continue;
      (*texts)[static_cast<size_t>(delta->choice)] += delta->text;
      if (delta->ended) order.push_back(delta->choice);
    }
    return order;
  }
};

TEST_P(SchedulerReadingTest, ShortPromptsAreReadWithinLongOnes) {
  const auto engine = model_.Open();
  std::vector<JobSpec> specs{Spec(TestTokens(4000, 1), 5), Spec(TestTokens(900, 2), 5), Spec(TestTokens(60, 3), 5),
                             Spec(TestTokens(3000, 4), 5)};
  std::vector<std::string> alone;
  for (const JobSpec& spec : specs) alone.push_back(Alone(*engine, spec));
  Scheduler scheduler(engine, {}, nullptr);
  const auto channel = std::make_shared<JobChannel>();
  // While this one runs the others reach the queue; the first of them is taken first.
  std::promise<void> all_wait;
  std::thread holder([&] { scheduler.OnEngineThread([&](SessionPool&) { all_wait.get_future().wait(); }); });
  for (size_t i = 0; i < specs.size(); ++i) {
    specs[i].first_choice = static_cast<int>(i);
    ASSERT_FALSE(scheduler.Submit(specs[i], channel));
  }
  all_wait.set_value();
  holder.join();
  std::vector<std::string> texts;
  std::vector<PromptRead> reads;
  const std::vector<int> order = OrderOfEnds(*channel, specs.size(), &texts, &reads);
  EXPECT_EQ(texts, alone);
  // The last is as long as what was left of the first, or longer: it waits.
  EXPECT_EQ(order.back(), 3);
  std::vector<int64_t> lengths;
  for (const PromptRead& read : reads) lengths.push_back(read.stats.prompt_tokens);
  EXPECT_EQ(lengths.back(), 3000);
  EXPECT_EQ(lengths[2], 4000);
  EXPECT_EQ(std::min(lengths[0], lengths[1]), 60);
  EXPECT_EQ(std::max(lengths[0], lengths[1]), 900);
}

TEST_P(SchedulerReadingTest, APromptWaitsForWhatItWillGoOnFrom) {
  const auto engine = model_.Open();
  const std::vector<Token> shared = TestTokens(3000, 1);
  std::vector<Token> branch(shared.begin(), shared.begin() + 600);
  branch.resize(700, 7);
  std::vector<JobSpec> specs{Spec(shared, 3), Spec(branch, 3)};
  specs[1].first_choice = 1;
  Scheduler scheduler(engine, {}, nullptr);
  const auto channel = std::make_shared<JobChannel>();
  for (const JobSpec& spec : specs) ASSERT_FALSE(scheduler.Submit(spec, channel));
  std::vector<std::string> texts;
  std::vector<PromptRead> reads;
  OrderOfEnds(*channel, specs.size(), &texts, &reads);
  EXPECT_EQ(reads[0].stats.prompt_tokens, 3000);
  EXPECT_EQ(reads[1].stats.cached_tokens, 600);
}

TEST_P(SchedulerReadingTest, ACancelledPromptEndsWithinAChunk) {
  const TestModel patient(32768);  // whose prompt takes seconds
  const auto engine = patient.Open();
  Scheduler scheduler(engine, {.progress_interval = std::chrono::milliseconds(0)}, nullptr);
  const auto channel = std::make_shared<JobChannel>();
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(30'000, 1), 90), channel));
  ASSERT_TRUE(std::holds_alternative<PromptProgress>(Next(*channel)));
  channel->Cancel();
  const auto is_progress = [](const JobEvent& event) { return std::holds_alternative<PromptProgress>(event); };
  std::optional<JobEvent> event;
  do {  // what came before, or in that moment
    event = channel->Wait(std::chrono::milliseconds(0));
  } while (event && is_progress(*event));
  // The chunk that was on its way when the client went may still be told of.
  int further = 0;
  for (; !event || is_progress(*event); event = Next(*channel)) further += event ? 1 : 0;
  EXPECT_LE(further, 1);
  ASSERT_TRUE(std::holds_alternative<JobFailed>(*event));
  // Its place, its KV and its dialogue are free.
  const auto next = std::make_shared<JobChannel>();
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(50, 2), 3), next));
  EXPECT_TRUE(Wait(*next).done);
  ASSERT_TRUE(scheduler.OnEngineThread([&](SessionPool& pool) { EXPECT_EQ(pool.size(), 1u); }));
  EXPECT_EQ(engine->kv_used_bytes(), engine->kv_block_bytes());
}

TEST_P(SchedulerReadingTest, OneThatWaitsWithinALongPromptCanBeCancelled) {
  Scheduler scheduler(model_.Open(), {.max_running = 1}, nullptr);
  const auto reading = std::make_shared<JobChannel>(), waiting = std::make_shared<JobChannel>();
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(4000, 1), 1), reading));
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(50, 2), 3), waiting));
  waiting->Cancel();
  EXPECT_TRUE(Wait(*waiting).error) << "told before or while the long one is read";
  EXPECT_TRUE(Wait(*reading).done);
}

TEST_P(SchedulerReadingTest, OneThatWaitsForMemoryIsCounted) {
  const size_t budget = 16 * model_.Open()->kv_block_bytes();
  Metrics metrics("tiny");
  Scheduler scheduler(model_.Open(budget), {.pool = {.kv_budget_bytes = budget}}, &metrics);
  const auto running = std::make_shared<JobChannel>(), waiting = std::make_shared<JobChannel>();
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(100, 1), 3900), running));  // five blocks are planned for it
  while (!std::holds_alternative<AnswerDelta>(Next(*running))) {
  }
  ASSERT_FALSE(scheduler.Submit(Spec(TestTokens(3000, 2), 3), waiting));  // twelve
  // A round after it left the queue the gauge has been set.
  ASSERT_TRUE(scheduler.OnEngineThread([](SessionPool&) {}));
  ASSERT_TRUE(scheduler.OnEngineThread([&](SessionPool&) {
    EXPECT_EQ(scheduler.n_waiting(), 1u);
    EXPECT_NE(metrics.ToText().find("vllm:num_requests_waiting{model_name=\"tiny\"} 1"), std::string::npos);
  }));
  running->Cancel();
  EXPECT_TRUE(Wait(*waiting).done);
  EXPECT_EQ(scheduler.n_waiting(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Policies, SchedulerReadingTest, testing::Values("dense", kSparsePolicy),
                         [](const auto& tested) { return tested.param[0] == 'd' ? "dense" : "loopserve"; });

}  // namespace
}  // namespace loopserve::server
