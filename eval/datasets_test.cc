#include "eval/datasets.h"

#include <gtest/gtest.h>

#include <set>

#include "src/base/sha256.h"

namespace loopserve::eval {
namespace {

TEST(DatasetsTest, PromptsLengthsAndMetricsAreLongBenchs) {
  // The checksums are those of the entries of LongBench's config/dataset2prompt.json.
  const struct {
    const char* name;
    const char* prompt_sha256;
    int64_t max_answer_tokens;
    Metric metric;
    bool first_line_only;
  } cases[] = {
      {"narrativeqa", "aada7ed24b06abace5b0045ac3bcfe06fc831a6cf434f0ecfd99fb7b3d299e1c", 128, Metric::kTokenF1, false},
      {"qasper", "0fbdd123fe7f83d6d6a9c583ca28cb29d68e523bf8fec01a0cf2dcd11037775d", 128, Metric::kTokenF1, false},
      {"multifieldqa_en", "20b4666a2de8a1f701bdb6c4e015fa9f8758d64b361d841f7766df6c9ceba770", 64, Metric::kTokenF1,
       false},
      {"hotpotqa", "9ec4ae308865bd0c62af20b3dc7b12b31f2b447f55684bd88c1aa40f2f636deb", 32, Metric::kTokenF1, false},
      {"2wikimqa", "9ec4ae308865bd0c62af20b3dc7b12b31f2b447f55684bd88c1aa40f2f636deb", 32, Metric::kTokenF1, false},
      {"musique", "9ec4ae308865bd0c62af20b3dc7b12b31f2b447f55684bd88c1aa40f2f636deb", 32, Metric::kTokenF1, false},
      {"gov_report", "91c25d585b189ced91c9280efcb4ecb5dcff9548cd4e3bfae66c68025b569e95", 512, Metric::kRougeL, false},
      {"qmsum", "dca23b678fe0183bbd9555b57947022aed1b85739da5ad7e1b4708dd0c71c409", 512, Metric::kRougeL, false},
      {"multi_news", "2af3f28c40b902e6535d4910510d51653613c49de9b2fc287c5958395061101d", 512, Metric::kRougeL, false},
      {"trec", "0eff8bebdba99d91e9d7d91b6ab39455ac74648bea92c9255c9f68c62175b2db", 64, Metric::kClassAccuracy, true},
      {"samsum", "a68d884234907eefcaa0eacf7b2997f60fa46603988dceae6a44f9b49f045b3f", 128, Metric::kRougeL, true},
  };
  EXPECT_EQ(Datasets().size(), std::size(cases));
  for (const auto& c : cases) {
    const DatasetSpec* dataset = FindDataset(c.name);
    ASSERT_NE(dataset, nullptr) << c.name;
    std::string prompt(dataset->intro);
    prompt += std::string(dataset->label) + "{context}" + std::string(dataset->ask) + std::string(dataset->cue);
    EXPECT_EQ(Sha256Hex(prompt), c.prompt_sha256) << prompt;
    EXPECT_EQ(dataset->max_answer_tokens, c.max_answer_tokens) << c.name;
    EXPECT_EQ(dataset->metric, c.metric) << c.name;
    EXPECT_EQ(dataset->first_line_only, c.first_line_only) << c.name;
  }
}

TEST(DatasetsTest, EarlyQuestionsAskTheSameWithoutPointingUpwards) {
  for (const DatasetSpec& dataset : Datasets()) {
    SCOPED_TRACE(dataset.name);
    constexpr std::string_view kInput = "{input}";
    EXPECT_EQ(dataset.ask.find(kInput) == std::string_view::npos,
              dataset.early_ask.find(kInput) == std::string_view::npos);
    EXPECT_EQ(dataset.early_ask.find("above"), std::string_view::npos);
    EXPECT_FALSE(dataset.early_ask.empty());
    EXPECT_TRUE(dataset.early_cue.ends_with(":"));
    EXPECT_EQ(dataset.kind == ContextKind::kDocument, !dataset.noun.empty());
    EXPECT_EQ(dataset.kind == ContextKind::kDocument || !dataset.part.empty(), true);
  }
}

TEST(DatasetsTest, NamesAreDistinctAndFound) {
  std::set<std::string_view> names;
  for (const DatasetSpec& dataset : Datasets()) {
    EXPECT_TRUE(names.insert(dataset.name).second);
    EXPECT_EQ(FindDataset(dataset.name), &dataset);
    EXPECT_NE(DatasetNames().find(dataset.name), std::string::npos);
  }
  EXPECT_EQ(FindDataset("triviaqa"), nullptr);
  EXPECT_EQ(FindDataset(""), nullptr);
}

}  // namespace
}  // namespace loopserve::eval
