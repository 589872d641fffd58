#include "src/selection/decode/page_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace loopserve {
namespace {

using Pages = std::vector<int32_t>;

Pages Choose(const std::vector<std::vector<float>>& bounds, int64_t wanted) {
  const auto n_pages = static_cast<int64_t>(bounds[0].size());
  const int64_t stride = n_pages + 3;
  std::vector<float> flat(static_cast<size_t>(stride) * bounds.size(), 1e30f);  // between rows: nothing that is read
  for (size_t h = 0; h < bounds.size(); ++h) {
    std::ranges::copy(bounds[h], flat.begin() + static_cast<ptrdiff_t>(h) * stride);
  }
  std::vector<float> scratch;
  Pages pages = {99};
  ChoosePages(flat, static_cast<int>(bounds.size()), stride, n_pages, wanted, &scratch, &pages);
  return pages;
}

// The rule as it is written: sort all.
Pages ChoosePlain(const std::vector<std::vector<float>>& bounds, int64_t wanted) {
  std::vector<std::pair<float, int32_t>> ranked;
  for (size_t page = 0; page < bounds[0].size(); ++page) {
    float score = -INFINITY;
    for (const std::vector<float>& own : bounds) score = std::max(score, own[page] - std::ranges::max(own));
    ranked.emplace_back(score, static_cast<int32_t>(page));
  }
  std::ranges::sort(ranked, std::greater<>());
  Pages pages;
  for (size_t i = 0; i < std::min(ranked.size(), static_cast<size_t>(wanted)); ++i) pages.push_back(ranked[i].second);
  std::ranges::sort(pages);
  return pages;
}

TEST(PageChoiceTest, BudgetsInPages) {
  EXPECT_EQ(PagesOfBudget(1024), 64);
  EXPECT_EQ(PagesOfBudget(1039), 64);
  EXPECT_EQ(PagesOfBudget(64), 4);
  EXPECT_EQ(PagesOfBudget(48), 3);
  EXPECT_EQ(PagesOfBudget(47), 3);
  EXPECT_EQ(PagesOfBudget(1), 3);
}

TEST(PageChoiceTest, NamedCases) {
  const struct {
    const char* name;
    std::vector<std::vector<float>> bounds;
    int64_t wanted;
    Pages expected;
  } kCases[] = {
      {"the highest bounds", {{1, 5, 3, 4}}, 2, {1, 3}},
      {"among equals the later page", {{2, 2, 2, 2}}, 2, {2, 3}},
      {"equal at the cut alone", {{7, 2, 2, 9}}, 3, {0, 2, 3}},
      {"all, if there are no more", {{1, 2}}, 2, {0, 1}},
      {"all, if there are fewer", {{1, 2}}, 5, {0, 1}},
      {"none", {{1, 2}}, 0, {}},
      {"each query's best page", {{9, 0, 1, 0}, {0, 1, 0, 9}}, 2, {0, 3}},
      {"a query that is high throughout does not choose for all", {{90, 91, 92, 93}, {9, 0, 0, 0}}, 2, {0, 3}},
      {"NaN is read", {{1, NAN, 3, 4}}, 1, {1}},
      {"infinite bounds are the largest", {{INFINITY, 1, 3, -INFINITY}}, 2, {0, 2}},
      {"NaN of one query only", {{1, NAN, 3, 4}, {9, 1, 1, 0}}, 2, {0, 1}},
      {"everything NaN: the latest", {{NAN, NAN, NAN}}, 2, {1, 2}},
  };
  for (const auto& c : kCases) EXPECT_EQ(Choose(c.bounds, c.wanted), c.expected) << c.name;
}

TEST(PageChoiceTest, IsTheRuleOnRandomBounds) {
  std::mt19937 random(5);
  for (int i = 0; i < 500; ++i) {
    std::vector<std::vector<float>> bounds(1 + random() % 5, std::vector<float>(1 + random() % 60));
    for (std::vector<float>& own : bounds) {
      own.resize(bounds[0].size());
      const auto levels = 1 + random() % 30;  // few levels: many ties
      for (float& bound : own) bound = static_cast<float>(random() % levels) - 10;
    }
    const auto wanted = static_cast<int64_t>(random() % 70);
    EXPECT_EQ(Choose(bounds, wanted), ChoosePlain(bounds, wanted));
  }
}

}  // namespace
}  // namespace loopserve
