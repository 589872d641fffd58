#include "eval/dialogue_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "eval/item_pool.h"
#include "eval/test_items.h"

namespace loopserve::eval {
namespace {

using testing::HasSubstr;
using testing::Not;

const DatasetSpec& Dataset(std::string_view name) { return *FindDataset(name); }

BuiltDialogues Build(const DatasetSpec& dataset, std::vector<Item> items, const BuildOptions& options) {
  Result<BuiltDialogues> built = BuildDialogues(dataset, std::move(items), options, CountWords);
  EXPECT_TRUE(built.ok()) << dataset.name << ": " << built.status().message();
  return built.ok() ? std::move(*built) : BuiltDialogues();
}

std::string Lines(const BuiltDialogues& built) {
  std::string lines;
  for (const WrittenDialogue& dialogue : built.dialogues) lines += FormatDialogue(dialogue) + "\n";
  return lines;
}

BuildOptions One(Position position, Dependency dependency, int64_t tokens) {
  BuildOptions options;
  options.positions = {position};
  options.dependencies = {dependency};
  options.tokens = tokens;
  return options;
}

/// The letter of the item that a turn asks about.
std::string AskedItem(const DialogueTurn& turn) { return turn.task->source_ids.front().substr(3, 1); }

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

TEST(DialogueBuilderTest, CrossSplitsTheSupportingPassagesOverTheTurns) {
  for (const char* name : {"hotpotqa", "2wikimqa", "musique"}) {
    for (const int64_t tokens : {560, 900, 4000}) {  // with many passages left out, some and none
      for (const Position position : AllOf<Position>()) {
        const BuiltDialogues built = Build(Dataset(name), TestItems(Dataset(name), 3, {.words = 600}),
                                           One(position, Dependency::kCross, tokens));
        ASSERT_EQ(built.dialogues.size(), 1u);
        const auto& turns = built.dialogues[0].turns;
        for (size_t i = 1; i < 3; ++i) {
          ASSERT_EQ(turns[i].task->text_turns, (std::vector<int>{static_cast<int>(i), static_cast<int>(i) + 1}));
          const std::string item = AskedItem(turns[i]);
          EXPECT_THAT(turns[i - 1].user, HasSubstr("goldfirst" + item + " "));
          EXPECT_THAT(turns[i - 1].user, Not(HasSubstr("goldsecond" + item + " ")));
          EXPECT_THAT(turns[i].user, HasSubstr("goldsecond" + item + " "));
          EXPECT_THAT(turns[i].user, Not(HasSubstr("goldfirst" + item + " ")));
        }
      }
    }
  }
}

TEST(DialogueBuilderTest, PassagesAreNumberedThroughTheDialogue) {
  const BuiltDialogues built = Build(Dataset("musique"), TestItems(Dataset("musique"), 3, {.words = 120}),
                                     One(Position::kEnd, Dependency::kSame, 10'000));
  int expected = 0;
  for (const DialogueTurn& turn : built.dialogues[0].turns) {
    for (size_t at = turn.user.find("\nPassage "); at != std::string::npos; at = turn.user.find("\nPassage ", at + 1)) {
      const std::string number = std::to_string(++expected) + ":";
      EXPECT_EQ(turn.user.substr(at + 9, number.size()), number);
    }
  }
  EXPECT_EQ(expected, 12);
}

TEST(DialogueBuilderTest, SupportingPassagesThatAreTooLongAreCutThemselves) {
  const BuiltDialogues built = Build(Dataset("hotpotqa"), TestItems(Dataset("hotpotqa"), 3, {.words = 120}),
                                     One(Position::kEnd, Dependency::kSame, 96 + 32 + 36 + 3 * 60 + 3 * 64));
  for (const DialogueTurn& turn : built.dialogues[0].turns) {
    EXPECT_THAT(turn.user, HasSubstr("goldfirst" + AskedItem(turn)));
    EXPECT_THAT(turn.user, HasSubstr("goldsecond" + AskedItem(turn)));
  }
}

TEST(DialogueBuilderTest, PartsOfWhichNoneFitsAreCutThemselves) {
  for (const char* name : {"samsum", "trec", "hotpotqa"}) {
    auto items = TestItems(Dataset(name), 3);
    for (Item& item : items) {
      const std::string huge = TestDocument({.words = 5000, .name = item.id.c_str()});
      item.context =
          std::string(Dataset(name).part) + "1: " + huge + "\n" + std::string(Dataset(name).part) + "2: " + huge;
      item.supporting_passages = {77};  // none of these
    }
    for (const Dependency dependency : AllOf<Dependency>()) {
      const BuiltDialogues built = Build(Dataset(name), items, One(Position::kBegin, dependency, 2000));
      ASSERT_EQ(built.dialogues.size(), 1u);
      for (const DialogueTurn& turn : built.dialogues[0].turns) {
        EXPECT_GT(turn.task->cut_tokens, 9000);
        const std::string text = "fact" + turn.task->source_ids[0] + "0";  // the first word of the text asked about
        const int holder = turn.task->text_turns.front();
        EXPECT_THAT(built.dialogues[0].turns[static_cast<size_t>(holder) - 1].user, HasSubstr(text));
      }
      EXPECT_GT(TokensOfDialogue(built.dialogues[0], CountWords), 1800);
    }
  }
}

TEST(DialogueBuilderTest, ADocumentWithSeveralQuestionsIsGivenOnce) {
  for (const Dependency dependency : {Dependency::kEarlier, Dependency::kCross}) {
    const auto items = TestItems(Dataset("qasper"), 2, {.words = 400, .n_questions = 5});
    const BuiltDialogues built = Build(Dataset("qasper"), items, One(Position::kEnd, dependency, 5000));
    const auto& turns = built.dialogues[0].turns;
    std::set<std::string> questions;
    for (const DialogueTurn& turn : turns) {
      EXPECT_EQ(AskedItem(turn), AskedItem(turns[0]));
      EXPECT_TRUE(questions.insert(turn.task->source_ids[0]).second);
    }
    EXPECT_LT(CountWords(turns[2].user), 100) << "it only asks";
    const bool splits = dependency == Dependency::kCross;
    EXPECT_EQ(turns[0].user.find("Article, part 1 of 2:") != std::string::npos, splits);
    EXPECT_EQ(turns[1].user.find("Article, part 2 of 2:") != std::string::npos, splits);
  }
}

TEST(DialogueBuilderTest, QuestionsWhoseAnswersAreLeftComeFirst) {
  // Questions ask for the facts 1 to 40; with 20 words kept at each end, most answers are cut away.
  Item item = TestItem(Dataset("qasper"), {.words = 1000, .n_questions = 400, .name = "A"});
  std::reverse(item.questions.begin(), item.questions.end());
  const BuiltDialogues built = Build(Dataset("qasper"), {item}, One(Position::kEnd, Dependency::kEarlier, 384 + 450));
  for (const DialogueTurn& turn : built.dialogues[0].turns) {
    Question question;
    question.answers = turn.reference;
    EXPECT_EQ(AnswerSupport(question, WordSet(built.dialogues[0].turns[0].user)), 1.0) << turn.reference[0];
  }
}

TEST(DialogueBuilderTest, LaterDialoguesOnADocumentGoOnInItsQuestions) {
  BuildOptions options = One(Position::kEnd, Dependency::kEarlier, 5000);
  options.samples = 3;
  const auto items = TestItems(Dataset("qmsum"), 1, {.words = 400, .n_questions = 9});
  const BuiltDialogues built = Build(Dataset("qmsum"), items, options);
  std::set<std::string> questions;
  for (const WrittenDialogue& dialogue : built.dialogues) {
    for (const DialogueTurn& turn : dialogue.turns) questions.insert(turn.task->source_ids[0]);
  }
  EXPECT_EQ(questions.size(), 9u);
  EXPECT_EQ(built.reused_items, 2);
}

TEST(DialogueBuilderTest, AQuestionSaysWhichOfSeveralDocumentsItMeans) {
  for (const char* name : {"gov_report", "multi_news", "multifieldqa_en"}) {
    const DatasetSpec& dataset = Dataset(name);
    for (const Position position : AllOf<Position>()) {
      const BuiltDialogues built = Build(dataset, TestItems(dataset, 3), One(position, Dependency::kEarlier, 5000));
      const auto& turns = built.dialogues[0].turns;
      const std::string noun(dataset.noun);
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_THAT(turns[i].user, HasSubstr("This is about " + noun + " " + std::to_string(i + 1) + "."));
        const std::string label = noun + " " + std::to_string(i + 1) + ":\nfact" + AskedItem(turns[i]) + "0 ";
        EXPECT_THAT(turns[static_cast<size_t>(turns[i].task->text_turns[0] - 1)].user, HasSubstr(label));
      }
    }
  }
}

TEST(DialogueBuilderTest, CutTokensAreWhatTheTextLost) {
  const DatasetSpec& dataset = Dataset("narrativeqa");
  const auto items = TestItems(dataset, 3, {.words = 700});
  const BuiltDialogues whole = Build(dataset, items, One(Position::kEnd, Dependency::kSame, 100'000));
  const BuiltDialogues cut = Build(dataset, items, One(Position::kEnd, Dependency::kSame, 1500));
  EXPECT_EQ(whole.cut_tokens, 0);
  int64_t lost = 0;
  for (const DialogueTurn& turn : cut.dialogues[0].turns) {
    for (const DialogueTurn& full : whole.dialogues[0].turns) {
      if (AskedItem(full) != AskedItem(turn)) continue;
      EXPECT_EQ(turn.task->cut_tokens, CountWords(full.user) - CountWords(turn.user));
      lost += turn.task->cut_tokens;
    }
  }
  EXPECT_EQ(cut.cut_tokens, lost);
  EXPECT_EQ(cut.cut_turns, 3);
}

TEST(DialogueBuilderTest, MixTakesTheDependenciesInTurn) {
  BuildOptions options;
  options.samples = 2;
  options.mix = true;
  options.tokens = 6000;
  std::set<std::string> kinds;
  for (const DatasetSpec& dataset : Datasets()) {
    const BuiltDialogues built = Build(dataset, TestItems(dataset, 6), options);
    EXPECT_EQ(built.dialogues.size(), 2u * 3u) << dataset.name;
    std::set<Dependency> seen;
    for (const WrittenDialogue& dialogue : built.dialogues) seen.insert(dialogue.turns[2].task->dependency);
    EXPECT_EQ(seen.size(), 2u) << dataset.name;
    for (const Dependency dependency : seen) kinds.insert(std::string(NameOf(dependency)));
  }
  EXPECT_EQ(kinds.size(), 3u);
}

TEST(DialogueBuilderTest, TooFewTokensNameWhatIsEnough) {
  for (const DatasetSpec& dataset : Datasets()) {
    for (const Dependency dependency : AllOf<Dependency>()) {
      const auto items = TestItems(dataset, 3, {.words = 600});
      BuildOptions options = One(Position::kEnd, dependency, 100);
      const auto built = BuildDialogues(dataset, items, options, CountWords);
      EXPECT_EQ(built.status().code(), StatusCode::kInvalidArgument);
      const std::string& message = built.status().message();
      EXPECT_THAT(message, HasSubstr(std::string(dataset.name)));
      const size_t at = message.find("at least ");
      ASSERT_NE(at, std::string::npos) << message;
      options.tokens = std::stoll(message.substr(at + 9)) + 40;  // what a coarse cut may leave over
      EXPECT_TRUE(BuildDialogues(dataset, items, options, CountWords).ok()) << message;
    }
  }
}

TEST(DialogueBuilderTest, TooFewItemsAreNamedAndFewAreUsedAgain) {
  BuildOptions options = One(Position::kEnd, Dependency::kSame, 3000);
  const auto none = BuildDialogues(Dataset("trec"), {}, options, CountWords);
  EXPECT_THAT(none.status().message(), HasSubstr("takes 3 different items, but there are 0"));
  const auto two = BuildDialogues(Dataset("trec"), TestItems(Dataset("trec"), 2), options, CountWords);
  EXPECT_EQ(two.status().code(), StatusCode::kInvalidArgument);
  options.samples = 4;
  const BuiltDialogues built = Build(Dataset("trec"), TestItems(Dataset("trec"), 7), options);
  EXPECT_EQ(built.dialogues.size(), 4u);
  EXPECT_EQ(built.reused_items, 6);
  for (const WrittenDialogue& dialogue : built.dialogues) {
    std::set<std::string> items;
    for (const DialogueTurn& turn : dialogue.turns) items.insert(AskedItem(turn));
    EXPECT_EQ(items.size(), 3u);
  }
}

TEST(DialogueBuilderTest, NonsenseAndInterruptsAreErrors) {
  const auto items = TestItems(Dataset("trec"), 3);
  BuildOptions options;
  options.samples = 0;
  EXPECT_EQ(BuildDialogues(Dataset("trec"), items, options, CountWords).status().code(), StatusCode::kInvalidArgument);
  options.samples = 1;
  options.tokens = 0;
  EXPECT_EQ(BuildDialogues(Dataset("trec"), items, options, CountWords).status().code(), StatusCode::kInvalidArgument);
  options.tokens = 4000;
  const std::atomic<bool> cancel = true;
  options.cancel = &cancel;
  EXPECT_EQ(BuildDialogues(Dataset("trec"), items, options, CountWords).status().code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace loopserve::eval
