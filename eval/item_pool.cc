#include "eval/item_pool.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "eval/metrics.h"
#include "eval/unicode_text.h"

namespace loopserve::eval {
namespace {

bool IsTelling(const std::u32string& word) {
  constexpr size_t kTellingLetters = 4;
  return word.size() >= kTellingLetters ||
         std::any_of(word.begin(), word.end(), [](char32_t c) { return c >= '0' && c <= '9'; });
}

/// Both forms of sets without loss: whole examples, or passages that the question does not need.
bool CanLeaveOut(const DatasetSpec& dataset, const Item& item) {
  return dataset.kind == ContextKind::kExamples ||
         (dataset.kind == ContextKind::kPassages && !item.supporting_passages.empty());
}

int LossClass(const DatasetSpec& dataset, const PooledItem& pooled, const ItemNeed& need, const CountTokens& count) {
  constexpr double kSeen = 0.5;
  const double ratio = static_cast<double>(std::max<int64_t>(1, pooled.context_tokens)) /
                       static_cast<double>(std::max<int64_t>(1, need.share_tokens));
  const bool free = ratio > 1 && CanLeaveOut(dataset, pooled.item);
  int loss = free ? 0 : static_cast<int>(std::lround(std::abs(std::log2(ratio))));
  if (dataset.metric == Metric::kTokenF1 && ratio > 1 && !free) {
    const auto words = WordSet(CutMiddle(pooled.item.context, pooled.context_tokens, need.share_tokens, count).text);
    double best = 0;
    for (const Question& question : pooled.item.questions) best = std::max(best, AnswerSupport(question, words));
    if (best < kSeen) loss += 2;
  }
  constexpr int kUnknownSupport = 100;
  const bool wants_support = need.splits && dataset.kind == ContextKind::kPassages;
  if (wants_support && pooled.item.supporting_passages.size() < 2) loss += kUnknownSupport;
  return loss;
}

void AddQuestions(std::vector<Question> questions, Item* item) {
  for (Question& question : questions) {
    const bool known = std::any_of(item->questions.begin(), item->questions.end(),
                                   [&](const Question& other) { return other.text == question.text; });
    if (!known) item->questions.push_back(std::move(question));
  }
}

}  // namespace

std::vector<PooledItem> MakePool(const DatasetSpec& dataset, std::vector<Item> items, const CountTokens& count) {
  std::vector<PooledItem> pool;
  std::map<std::string, size_t> by_context;
  for (Item& item : items) {
    if (dataset.kind == ContextKind::kDocument) {
      const auto [found, is_new] = by_context.emplace(item.context, pool.size());
      if (!is_new) {
        AddQuestions(std::move(item.questions), &pool[found->second].item);
        continue;
      }
    }
    const int64_t tokens = count(item.context);
    std::vector<Question> questions = std::exchange(item.questions, {});
    AddQuestions(std::move(questions), &item);
    pool.push_back({std::move(item), tokens});
  }
  return pool;
}

std::set<std::u32string> WordSet(std::string_view text) {
  const std::vector<std::u32string> words = NormalizedWords(text);
  return {words.begin(), words.end()};
}

double AnswerSupport(const Question& question, const std::set<std::u32string>& text_words) {
  constexpr double kUnknown = 0.5;
  double best = -1;
  for (const std::string& answer : question.answers) {
    int telling = 0;
    int seen = 0;
    for (const std::u32string& word : NormalizedWords(answer)) {
      if (!IsTelling(word)) continue;
      ++telling;
      if (text_words.count(word) != 0) ++seen;
    }
    if (telling > 0) best = std::max(best, static_cast<double>(seen) / telling);
  }
  return best < 0 ? kUnknown : best;
}

std::vector<const PooledItem*> OrderItems(const DatasetSpec& dataset, const std::vector<PooledItem>& pool,
                                          const ItemNeed& need, const CountTokens& count, std::mt19937_64* random) {
  std::vector<std::pair<int, const PooledItem*>> ranked;
  for (const PooledItem& pooled : pool) {
    if (static_cast<int>(pooled.item.questions.size()) < need.min_questions) continue;
    ranked.emplace_back(LossClass(dataset, pooled, need, count), &pooled);
  }
  Shuffle(&ranked, random);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<const PooledItem*> order;
  std::set<std::string> ids;
  for (const auto& [loss, pooled] : ranked) {
    if (ids.insert(pooled->item.id).second) order.push_back(pooled);
  }
  return order;
}

}  // namespace loopserve::eval
