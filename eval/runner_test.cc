#include "eval/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/test_results.h"
#include "src/base/temp_dir.h"

namespace loopserve::eval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

WrittenDialogue Dialogue(const std::string& id, Position position = Position::kEnd,
                         Dependency dependency = Dependency::kSame) {
  TurnTask task;
  task.dataset = "hotpotqa";
  task.position = position;
  task.dependency = dependency;
  return {id, "", {{"read this and " + id, {"yes"}, task}}};
}

/// Remembers what it played; cancelled from the given number of dialogues on.
class FakePlayer : public Player {
 public:
  void Expect(const WrittenDialogue& dialogue, const std::vector<std::string>& policies) override {
    expected.push_back(dialogue.id + ":");
    for (const std::string& policy : policies) expected.back() += " " + policy;
  }
  Result<std::vector<PlayedTurn>> Play(const WrittenDialogue& dialogue, const std::string& policy) override {
    if (played.size() == cancel_after) return Status(StatusCode::kCancelled, "cancelled");
    if (played.size() == disk_full_after) return Status(StatusCode::kIoError, "cannot write logits: no space");
    if (dialogue.id == bad) return Status(StatusCode::kContextLength, "5,000 tokens, limit 4,096");
    played.push_back(dialogue.id + "/" + policy);
    PlayedTurn turn = TestTurn(1, "end", policy == "dense" ? 1.0 : 0.5);
    turn.answer = "answer to " + dialogue.id + " by " + policy;
    turn.ttft_ms = static_cast<double>(played.size());
    return std::vector{turn};
  }
  int threads() const override { return 3; }

  size_t cancel_after = 1000, disk_full_after = 1000;
  std::string bad;
  std::vector<std::string> played, expected;
};

class RunnerTest : public testing::Test {
 protected:
  ResultStore Open(const std::string& name = "r") const {
    auto store = ResultStore::OpenRun((temp_.path() / name).string(), {{"model_sha256", "1"}});
    EXPECT_TRUE(store.ok()) << store.status().message();
    return std::move(*store);
  }

  TempDir temp_;
  RunPlan plan_{{Dialogue("a"), Dialogue("b"), Dialogue("c")}, {"dense", "p:x=1"}};
};

TEST_F(RunnerTest, PlaysDialogueByDialogue) {
  FakePlayer player;
  ResultStore store = Open();
  std::vector<std::string> seen;
  RunOptions options;
  options.on_progress = [&](const RunProgress& progress) {
    seen.push_back(std::to_string(progress.done) + "/" + std::to_string(progress.total) + " " + progress.dialogue->id);
    EXPECT_EQ(progress.left_ms.has_value(), progress.done > 0);
  };
  const RunOutcome outcome = PlayAll(plan_, player, store, options);
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.total, 6);
  EXPECT_EQ(outcome.played, 6);
  EXPECT_THAT(player.played, ElementsAre("a/dense", "a/p:x=1", "b/dense", "b/p:x=1", "c/dense", "c/p:x=1"));
  EXPECT_THAT(player.expected, ElementsAre("a: dense p:x=1", "b: dense p:x=1", "c: dense p:x=1"));
  EXPECT_THAT(seen, ElementsAre("0/6 a", "1/6 a", "2/6 b", "3/6 b", "4/6 c", "5/6 c"));
  EXPECT_EQ(store.All()->at(0).threads, 3);
}

TEST_F(RunnerTest, AnInterruptedRunGoesOnToTheSameRows) {
  FakePlayer whole;
  ResultStore expected = Open("whole");
  PlayAll(plan_, whole, expected, {});
  for (size_t stop = 0; stop <= 6; ++stop) {
    SCOPED_TRACE(stop);
    const std::string name = "stopped" + std::to_string(stop);
    FakePlayer first;
    first.cancel_after = stop;
    {
      ResultStore store = Open(name);
      const RunOutcome outcome = PlayAll(plan_, first, store, {});
      EXPECT_EQ(outcome.played, static_cast<int64_t>(stop));
      EXPECT_EQ(outcome.status.code(), stop == 6 ? StatusCode::kOk : StatusCode::kCancelled);
    }
    FakePlayer second;
    ResultStore store = Open(name);
    const RunOutcome outcome = PlayAll(plan_, second, store, {});
    EXPECT_TRUE(outcome.status.ok());
    EXPECT_EQ(outcome.before, static_cast<int64_t>(stop));
    EXPECT_EQ(second.played.size(), 6 - stop);
    EXPECT_EQ(Dump(*store.All(), false), Dump(*expected.All(), false));
  }
}

TEST_F(RunnerTest, AFailureIsCountedAndTriedAgainByTheNextStart) {
  FakePlayer player;
  player.bad = "b";
  ResultStore store = Open();
  const RunOutcome outcome = PlayAll(plan_, player, store, {});
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.failed, 2);
  EXPECT_EQ(outcome.played, 4);
  EXPECT_THAT(outcome.first_error, HasSubstr("b, dense: 5,000 tokens"));
  player.bad = "";
  player.played.clear();
  EXPECT_EQ(PlayAll(plan_, player, store, {}).failed, 0);
  EXPECT_THAT(player.played, ElementsAre("b/dense", "b/p:x=1"));
  EXPECT_EQ(player.expected.back(), "b: dense p:x=1");
  plan_.policies.push_back("q");
  PlayAll(plan_, player, store, {});
  EXPECT_EQ(player.expected.back(), "c: q") << "what is finished is not expected";
}

TEST_F(RunnerTest, ADiskThatTakesNoMoreEndsItAndLeavesTheDialogueToTheNextStart) {
  FakePlayer player;
  player.disk_full_after = 3;
  ResultStore store = Open();
  const RunOutcome outcome = PlayAll(plan_, player, store, {});
  EXPECT_EQ(outcome.status.code(), StatusCode::kIoError);
  EXPECT_THAT(outcome.status.message(), HasSubstr("no space"));
  EXPECT_EQ(outcome.failed, 0);
  EXPECT_EQ(store.All()->size(), 3u);
  FakePlayer next;
  EXPECT_TRUE(PlayAll(plan_, next, store, {}).status.ok());
  EXPECT_THAT(next.played, ElementsAre("b/p:x=1", "c/dense", "c/p:x=1"));
}

TEST_F(RunnerTest, TheCancelFlagEndsItBetweenDialogues) {
  std::atomic<bool> cancel{true};
  FakePlayer player;
  ResultStore store = Open();
  RunOptions options;
  options.cancel = &cancel;
  EXPECT_EQ(PlayAll(plan_, player, store, options).status.code(), StatusCode::kCancelled);
  EXPECT_TRUE(player.played.empty());
}

TEST(TakeSamplesTest, OfEachDatasetPositionAndDependency) {
  const std::vector<WrittenDialogue> dialogues = {
      Dialogue("a"),
      Dialogue("b"),
      Dialogue("c", Position::kBegin),
      Dialogue("d", Position::kEnd, Dependency::kCross),
      Dialogue("e"),
      {"f", "", {{"plain", {}, {}}}},
  };
  const auto ids = [](const std::vector<WrittenDialogue>& kept) {
    std::string text;
    for (const WrittenDialogue& dialogue : kept) text += dialogue.id;
    return text;
  };
  EXPECT_EQ(ids(TakeSamples(dialogues, 1)), "acdf");
  EXPECT_EQ(ids(TakeSamples(dialogues, 2)), "abcdf");
  EXPECT_EQ(ids(TakeSamples(dialogues, 0)), "abcdef");
}

}  // namespace
}  // namespace loopserve::eval
