#include "eval/item_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/test_items.h"

namespace loopserve::eval {
namespace {

using testing::ElementsAre;

const DatasetSpec& Dataset(const char* name) { return *FindDataset(name); }

std::vector<std::string> Ids(const std::vector<const PooledItem*>& items) {
  std::vector<std::string> ids;
  for (const PooledItem* pooled : items) ids.push_back(pooled->item.id);
  return ids;
}

TEST(ItemPoolTest, QuestionsOnTheSameDocumentComeTogether) {
  std::vector<Item> items = TestItems(Dataset("qasper"), 2);
  Item again = items[0];
  again.id = "other";
  again.questions[0].id = "other";
  again.questions[0].text = "Why?";
  items.push_back(again);
  items.push_back(items[0]);
  const auto pool = MakePool(Dataset("qasper"), items, CountWords);
  ASSERT_EQ(pool.size(), 2u);
  ASSERT_EQ(pool[0].item.questions.size(), 2u) << "a question that comes twice is kept once";
  EXPECT_EQ(pool[0].item.questions[1].text, "Why?");
  EXPECT_EQ(pool[0].item.questions[1].id, "other");
  EXPECT_EQ(pool[0].context_tokens, CountWords(items[0].context));
  EXPECT_EQ(MakePool(Dataset("trec"), TestItems(Dataset("trec"), 3), CountWords).size(), 3u);
}

TEST(ItemPoolTest, AnswerSupportLooksForTellingWords) {
  const auto support = [](std::vector<std::string> answers, const char* text) {
    return AnswerSupport({"", "", std::move(answers)}, WordSet(text));
  };
  EXPECT_DOUBLE_EQ(support({"The Paris train"}, "a PARIS station"), 0.5);
  EXPECT_DOUBLE_EQ(support({"London", "Paris"}, "Paris."), 1.0);
  EXPECT_DOUBLE_EQ(support({"In 7 days"}, "days"), 0.5);
  EXPECT_DOUBLE_EQ(support({"yes"}, "no"), 0.5);
  EXPECT_DOUBLE_EQ(support({"yes", "maybe"}, "no"), 0.0);
}

TEST(ItemPoolTest, ItemsThatLoseLittleComeFirst) {
  const DatasetSpec& dataset = Dataset("narrativeqa");
  std::vector<Item> items = TestItems(dataset, 4);
  const int words[] = {8000, 90, 1000, 2000};  // against a room of 1000: far too long, too short, right, half too long
  for (int i = 0; i < 4; ++i) {
    TestItemOptions options;
    options.words = words[i];
    options.name = i == 0 ? "A" : i == 1 ? "B" : i == 2 ? "C" : "D";
    items[static_cast<size_t>(i)] = TestItem(dataset, options);
  }
  const auto pool = MakePool(dataset, items, CountWords);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::mt19937_64 random(seed);
    EXPECT_THAT(Ids(OrderItems(dataset, pool, {1000, 1, false}, CountWords, &random)),
                testing::AllOf(testing::SizeIs(4), testing::Contains("id-A"),
                               testing::ResultOf([](const auto& ids) { return ids[0]; }, "id-C"),
                               testing::ResultOf([](const auto& ids) { return ids[1]; }, "id-D")));
  }
}

TEST(ItemPoolTest, ItemsWhoseAnswersAreCutAwayComeLater) {
  const DatasetSpec& dataset = Dataset("narrativeqa");
  std::vector<Item> items = TestItems(dataset, 2, {.words = 2000});
  items[0].questions[0].answers = {"factA1000"};  // in the middle of the text
  const auto pool = MakePool(dataset, items, CountWords);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::mt19937_64 random(seed);
    EXPECT_THAT(Ids(OrderItems(dataset, pool, {1000, 1, false}, CountWords, &random)), ElementsAre("id-B", "id-A"));
  }
}

TEST(ItemPoolTest, SplitsWantKnownSupportAndIdsComeOnce) {
  const DatasetSpec& dataset = Dataset("hotpotqa");
  std::vector<Item> items = TestItems(dataset, 2, {.words = 300});
  items[0].supporting_passages.clear();
  Item padded = items[1];
  padded.context = TestPassages({.words = 900, .name = "B"});
  padded.supporting_passages = {2, 29};
  items.push_back(padded);
  const auto pool = MakePool(dataset, items, CountWords);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::mt19937_64 random(seed);
    EXPECT_THAT(Ids(OrderItems(dataset, pool, {300, 1, true}, CountWords, &random)), ElementsAre("id-B", "id-A"));
  }
}

TEST(ItemPoolTest, TheGeneratorDecidesTheRestAndOnlyItsSeed) {
  const DatasetSpec& dataset = Dataset("gov_report");
  const auto pool = MakePool(dataset, TestItems(dataset, 10), CountWords);
  const auto order = [&](uint64_t seed) {
    std::mt19937_64 random(seed);
    return Ids(OrderItems(dataset, pool, {300, 1, false}, CountWords, &random));
  };
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
  EXPECT_EQ(order(1).size(), 10u);
}

TEST(ItemPoolTest, MinQuestionsAreAsked) {
  const DatasetSpec& dataset = Dataset("qmsum");
  std::vector<Item> items = TestItems(dataset, 2);
  items.push_back(TestItem(dataset, {.n_questions = 3, .name = "C"}));
  const auto pool = MakePool(dataset, items, CountWords);
  std::mt19937_64 random(0);
  EXPECT_THAT(Ids(OrderItems(dataset, pool, {300, 3, false}, CountWords, &random)), ElementsAre("id-C"));
}

}  // namespace
}  // namespace loopserve::eval
