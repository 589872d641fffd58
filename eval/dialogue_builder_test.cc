#include "eval/dialogue_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "eval/item_pool.h"
#include "eval/test_dialogues.h"

namespace loopserve::eval {
namespace {

using testing::HasSubstr;
using testing::Not;

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
