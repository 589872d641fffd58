#include "eval/prepared_document.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

namespace loopserve::eval {
namespace {

/// Passages or examples, the ones that are not needed left out as far as it takes.
void PrepareParts(const DatasetSpec& dataset, const Item& item, int64_t room_tokens, const CountTokens& count,
                  PreparedDocument* document, std::vector<bool>* needed) {
  const std::vector<std::string_view> parts = SplitParts(item.context, dataset.part);
  std::vector<int64_t> tokens;
  for (const std::string_view part : parts) tokens.push_back(count(part));
  const std::vector<int>& support = item.supporting_passages;
  for (const std::string_view part : parts) {
    needed->push_back(std::binary_search(support.begin(), support.end(), PassageNumber(part)));
  }
  const std::vector<bool> kept = DropMiddleParts(tokens, *needed, room_tokens);
  const auto n_kept = std::max<int64_t>(1, std::count(kept.begin(), kept.end(), true));
  int64_t kept_tokens = 0;
  for (size_t i = 0; i < parts.size(); ++i) kept_tokens += kept[i] ? tokens[i] : 0;
  std::vector<bool> needed_of_kept;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!kept[i]) {
      document->cut_tokens += tokens[i];
      continue;
    }
    // Only where the needed parts alone are too long: each is cut for itself.
    const bool fits = kept_tokens <= room_tokens;
    const CutText cut = CutMiddle(parts[i], tokens[i], fits ? tokens[i] : room_tokens / n_kept, count);
    document->parts.push_back(cut.text);
    document->cut_tokens += cut.cut_tokens;
    needed_of_kept.push_back((*needed)[i]);
  }
  *needed = std::move(needed_of_kept);
}

/// All parts that one of the two turns brings, put together.
std::string TextOf(const PreparedDocument& document, bool first, bool second) {
  std::string text;
  for (size_t i = 0; i < document.parts.size(); ++i) {
    const bool is_first = document.first.empty() || document.first[i];
    if (is_first ? first : second) text += document.parts[i] + "\n";
  }
  return text;
}

/// The order in which the turns on one document take its questions.
std::vector<const Question*> RankQuestions(const Item& item, const PreparedDocument& document, bool first_turn) {
  const auto all = WordSet(TextOf(document, true, true));
  const auto first = WordSet(TextOf(document, true, false));
  const auto second = WordSet(TextOf(document, false, true));
  std::vector<std::pair<double, const Question*>> ranked;
  for (const Question& question : item.questions) {
    double value = AnswerSupport(question, all);
    if (!document.first.empty()) {
      const double in_first = AnswerSupport(question, first);
      const double in_one = std::max(in_first, AnswerSupport(question, second));
      value = first_turn ? in_first : value + (value - in_one) / 2;
    }
    ranked.emplace_back(value, &question);
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<const Question*> order;
  for (const auto& [value, question] : ranked) order.push_back(question);
  return order;
}

}  // namespace

PreparedDocument PrepareDocument(const DatasetSpec& dataset, const PooledItem& pooled, int64_t room_tokens,
                                 bool is_split, const CountTokens& count) {
  PreparedDocument document;
  std::vector<bool> needed;
  const bool leaves_out = dataset.kind == ContextKind::kExamples || !pooled.item.supporting_passages.empty();
  if (dataset.kind != ContextKind::kDocument && leaves_out) {
    PrepareParts(dataset, pooled.item, room_tokens, count, &document, &needed);
  }
  // Otherwise, and where not one whole part fits.
  if (document.parts.empty()) {
    CutText cut = CutMiddle(pooled.item.context, pooled.context_tokens, room_tokens, count);
    document.cut_tokens = cut.cut_tokens;
    if (dataset.kind == ContextKind::kPassages) {
      for (const std::string_view part : SplitParts(cut.text, dataset.part)) document.parts.emplace_back(part);
    } else {
      document.parts.push_back(std::move(cut.text));
    }
    needed.clear();
  }
  if (!is_split) return document;
  if (document.parts.size() == 1) {
    const std::string text = std::move(document.parts.front());
    const size_t middle = MiddleBreak(text, dataset.part);
    document.parts = {std::string(Trimmed(std::string_view(text).substr(0, middle))),
                      std::string(Trimmed(std::string_view(text).substr(middle)))};
  }
  needed.resize(document.parts.size(), false);
  document.first = SplitOverTurns(needed);
  return document;
}

std::vector<const Question*> ChooseQuestions(const DialoguePlan& plan, const std::vector<PreparedDocument>& documents) {
  std::vector<const Question*> chosen;
  std::set<const Question*> taken;
  for (size_t turn = 0; turn < plan.turns.size(); ++turn) {
    const auto document = static_cast<size_t>(plan.turns[turn].document);
    const Item& item = plan.items[document]->item;
    const auto order = RankQuestions(item, documents[document], plan.turns[turn].dependency == Dependency::kSame);
    // Later dialogues on the same document go on in its questions, as far as there are others.
    const size_t skip = static_cast<size_t>(plan.uses_before) * plan.turns.size() % order.size();
    size_t i = order.size() >= plan.turns.size() + skip ? skip : 0;
    while (i + 1 < order.size() && taken.count(order[i]) != 0) ++i;
    chosen.push_back(order[i]);
    taken.insert(order[i]);
  }
  return chosen;
}

}  // namespace loopserve::eval
