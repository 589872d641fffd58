// What the scheduler's tests share: jobs, and what comes of them.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/server/scheduler.h"
#include "src/server/test_engine.h"

namespace loopserve::server {

inline constexpr auto kLong = std::chrono::seconds(60);

struct Outcome {
  std::vector<std::string> texts;
  std::optional<ApiError> error;
  std::optional<PromptRead> read;
  std::vector<GenerationStats> stats;
  bool done = false;
};

class SchedulerTest : public testing::TestWithParam<const char*> {
 protected:
  JobSpec Spec(std::vector<Token> prompt, int max_tokens) const {
    JobSpec spec;
    spec.prompt = std::move(prompt);
    spec.sampling = TestSampling(max_tokens);
    spec.policy = *Policy::Parse(GetParam());
    return spec;
  }

  static std::vector<std::shared_ptr<JobChannel>> SubmitAll(Scheduler& scheduler, const std::vector<JobSpec>& specs) {
    std::vector<std::shared_ptr<JobChannel>> channels;
    for (const JobSpec& spec : specs) {
      channels.push_back(std::make_shared<JobChannel>());
      EXPECT_FALSE(scheduler.Submit(spec, channels.back()));
    }
    return channels;
  }

  static Outcome Wait(JobChannel& channel, int n = 1) {
    Outcome outcome;
    outcome.texts.resize(static_cast<size_t>(n));
    while (!outcome.done && !outcome.error) {
      std::optional<JobEvent> event = channel.Wait(kLong);
      if (!event) {
        ADD_FAILURE() << "nothing came";
        break;
      }
      if (auto* read = std::get_if<PromptRead>(&*event)) outcome.read = *read;
      if (auto* failed = std::get_if<JobFailed>(&*event)) outcome.error = failed->error;
      if (auto* delta = std::get_if<AnswerDelta>(&*event)) {
        outcome.texts[static_cast<size_t>(delta->choice)] += delta->text;
        if (delta->ended) outcome.stats.push_back(delta->stats);
      }
      outcome.done = std::holds_alternative<JobDone>(*event);
    }
    return outcome;
  }

  std::string Alone(const Engine& engine, const JobSpec& spec) const {
    Session session = engine.NewSession(spec.policy);
    EXPECT_TRUE(session.Sync(spec.prompt).ok());
    const auto stats = session.Generate(spec.sampling);
    return stats.ok() ? stats->text : stats.status().message();
  }

  const TestModel model_;
};

}  // namespace loopserve::server
