// The dialogues of every dataset, position and dependency, with documents of one question and of several.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "eval/dialogue_builder.h"
#include "eval/test_dialogues.h"

namespace loopserve::eval {
namespace {

using testing::HasSubstr;

/// Every dataset with items of one question and, for documents, of several.
class EveryDataset : public testing::TestWithParam<std::tuple<std::string_view, int>> {
 protected:
  const DatasetSpec& dataset() const { return Dataset(std::get<0>(GetParam())); }
  std::vector<Item> Items(int words) const {
    return TestItems(dataset(), 6, {.words = words, .n_questions = std::get<1>(GetParam())});
  }
  bool asks() const { return dataset().ask.find("{input}") != std::string_view::npos; }
  int64_t answers() const { return 3 * dataset().max_answer_tokens; }
};

TEST_P(EveryDataset, ThreeTurnsOfTheAskedShapeAndLength) {
  BuildOptions options;
  options.samples = 2;
  options.tokens = answers() + 1500;
  const BuiltDialogues built = Build(dataset(), Items(2000), options);
  ASSERT_EQ(built.dialogues.size(), 3u * 3u * 2u);
  EXPECT_EQ(built.turns, 54);
  EXPECT_EQ(built.cut_turns, 54) << "every text is longer than its room";
  std::set<std::string> ids;
  for (const WrittenDialogue& dialogue : built.dialogues) {
    SCOPED_TRACE(dialogue.id);
    EXPECT_TRUE(ids.insert(dialogue.id).second);
    const int64_t tokens = TokensOfDialogue(dialogue, CountWords);
    EXPECT_LE(tokens, options.tokens);
    EXPECT_GE(tokens, options.tokens - 250) << "the room is used";
    ASSERT_EQ(dialogue.turns.size(), 3u);
    for (const DialogueTurn& turn : dialogue.turns) {
      ASSERT_TRUE(turn.task.has_value());
      EXPECT_EQ(turn.task->dataset, dataset().name);
      EXPECT_EQ(turn.task->metric, dataset().metric);
      EXPECT_EQ(turn.task->max_answer_tokens, dataset().max_answer_tokens);
      EXPECT_EQ(turn.task->first_line_only, dataset().first_line_only);
      EXPECT_EQ(turn.task->all_classes.empty(), dataset().metric != Metric::kClassAccuracy);
      EXPECT_FALSE(turn.task->source_ids.empty());
      EXPECT_GT(turn.task->cut_tokens, 0);
      ASSERT_EQ(turn.reference.size(), 1u);
      EXPECT_THAT(turn.reference[0], HasSubstr("fact" + AskedItem(turn)));
      EXPECT_THAT(dialogue.id, HasSubstr(std::string(NameOf(turn.task->position))));
      EXPECT_EQ(turn.user.find("What is " + turn.reference[0] + "?") != std::string::npos, asks());
    }
    EXPECT_EQ(dialogue.turns[0].task->dependency, Dependency::kSame);
    EXPECT_EQ(dialogue.turns[1].task->dependency, dialogue.turns[2].task->dependency);
    EXPECT_THAT(dialogue.id, HasSubstr(std::string(NameOf(dialogue.turns[1].task->dependency))));
  }
}

TEST_P(EveryDataset, QuestionsStandWhereTheyShould) {
  const int64_t tokens = answers() + 1500;
  for (const Position position : AllOf<Position>()) {
    const BuiltDialogues built = Build(dataset(), Items(2000), One(position, Dependency::kSame, tokens));
    ASSERT_EQ(built.dialogues.size(), 1u);
    for (const DialogueTurn& turn : built.dialogues[0].turns) {
      const size_t at = turn.user.rfind(asks() ? "What is " + turn.reference[0] + "?" : "one-page summary");
      ASSERT_NE(at, std::string::npos);
      const auto before = static_cast<double>(CountWords(turn.user.substr(0, at)));
      const double share = before / static_cast<double>(CountWords(turn.user));
      const double expected = position == Position::kBegin ? 0.1 : position == Position::kMiddle ? 0.5 : 0.9;
      EXPECT_NEAR(share, expected, 0.15) << turn.user;
      EXPECT_TRUE(turn.user.ends_with(":") || turn.user.ends_with(": ")) << "a cue ends the turn: " << turn.user;
      EXPECT_EQ(turn.user.find("above") == std::string::npos || position == Position::kEnd, true) << turn.user;
    }
  }
}

TEST_P(EveryDataset, AtTheEndThePromptIsLongBenchs) {
  const auto items = Items(60);
  const BuiltDialogues built = Build(dataset(), items, One(Position::kEnd, Dependency::kSame, 100'000));
  ASSERT_EQ(built.dialogues.size(), 1u);
  const DialogueTurn& turn = built.dialogues[0].turns[0];
  const Item& item = items[static_cast<size_t>(AskedItem(turn)[0] - 'A')];
  std::string prompt(dataset().intro);
  prompt += std::string(dataset().label) + item.context;
  const std::string_view ask = dataset().ask;
  const size_t input = ask.find("{input}");
  std::string question;
  for (const Question& each : item.questions) {
    if (each.id == turn.task->source_ids[0]) question = each.text;
  }
  prompt += input == std::string_view::npos ? std::string(ask) : std::string(ask.substr(0, input)) + question;
  prompt += std::string(dataset().cue);
  EXPECT_EQ(turn.user, prompt);
  EXPECT_EQ(built.cut_turns, 0);
  EXPECT_FALSE(turn.task->truncated());
}

TEST_P(EveryDataset, TheSameInputGivesTheSameBytes) {
  BuildOptions options;
  options.samples = 3;
  options.tokens = answers() + 1200;
  options.seed = 5;
  const std::string lines = Lines(Build(dataset(), Items(900), options));
  EXPECT_EQ(Lines(Build(dataset(), Items(900), options)), lines);
  options.seed = 6;
  EXPECT_NE(Lines(Build(dataset(), Items(900), options)), lines);
  options.seed = 5;
  for (const Position position : AllOf<Position>()) {
    for (const Dependency dependency : AllOf<Dependency>()) {
      BuildOptions fewer = options;
      fewer.positions = {position};
      fewer.dependencies = {dependency};
      fewer.samples = 1;
      EXPECT_THAT(lines, HasSubstr(Lines(Build(dataset(), Items(900), fewer)))) << "asking for less changes nothing";
    }
  }
}

TEST_P(EveryDataset, PositionsAreComparedOnTheSameTexts) {
  BuildOptions options;
  options.tokens = answers() + 1200;
  const BuiltDialogues built = Build(dataset(), Items(900), options);
  for (size_t i = 0; i + 2 < built.dialogues.size(); i += 3) {
    for (size_t turn = 0; turn < 3; ++turn) {
      const TurnTask& begin = *built.dialogues[i].turns[turn].task;
      for (size_t other = i + 1; other < i + 3; ++other) {
        EXPECT_EQ(built.dialogues[other].turns[turn].task->source_ids, begin.source_ids);
        EXPECT_EQ(built.dialogues[other].turns[turn].task->cut_tokens, begin.cut_tokens);
        EXPECT_EQ(built.dialogues[other].turns[turn].reference, built.dialogues[i].turns[turn].reference);
      }
    }
  }
}

TEST_P(EveryDataset, LaterTurnsNeedTheTextOfTheTurnsTheyName) {
  const int64_t tokens = answers() + 3000;
  for (const Dependency dependency : AllOf<Dependency>()) {
    const BuiltDialogues built = Build(dataset(), Items(600), One(Position::kEnd, dependency, tokens));
    ASSERT_EQ(built.dialogues.size(), 1u);
    const auto& turns = built.dialogues[0].turns;
    // A word that stands everywhere in the texts of an item, but in no question.
    const char* const stem = dataset().kind == ContextKind::kPassages   ? "title"
                             : dataset().kind == ContextKind::kExamples ? "example"
                                                                        : " fact";
    for (size_t i = 0; i < turns.size(); ++i) {
      SCOPED_TRACE(built.dialogues[0].id + ", turn " + std::to_string(i + 1));
      const std::string text_of_item = stem + AskedItem(turns[i]);
      std::set<int> holders;
      for (size_t k = 0; k <= i; ++k) {
        const std::string context = turns[k].user.substr(0, turns[k].user.rfind("What is"));
        if (context.find(text_of_item) != std::string::npos) holders.insert(static_cast<int>(k) + 1);
      }
      EXPECT_EQ(std::vector<int>(holders.begin(), holders.end()), turns[i].task->text_turns);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Names, EveryDataset,
                         testing::Values(std::tuple("narrativeqa", 1), std::tuple("narrativeqa", 8),
                                         std::tuple("qasper", 1), std::tuple("qasper", 8),
                                         std::tuple("multifieldqa_en", 1), std::tuple("hotpotqa", 1),
                                         std::tuple("2wikimqa", 1), std::tuple("musique", 1),
                                         std::tuple("gov_report", 1), std::tuple("qmsum", 1), std::tuple("qmsum", 8),
                                         std::tuple("multi_news", 1), std::tuple("trec", 1), std::tuple("samsum", 1)),
                         [](const auto& param) {
                           return std::string(std::get<0>(param.param)) + "_" +
                                  std::to_string(std::get<1>(param.param)) + "_questions";
                         });

}  // namespace
}  // namespace loopserve::eval
