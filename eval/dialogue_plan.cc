#include "eval/dialogue_plan.h"

#include <algorithm>
#include <utility>

#include "src/base/check.h"

namespace loopserve::eval {
namespace {

constexpr int kA = 0;
constexpr int kB = 1;
constexpr int kC = 2;

TurnPlan Same(std::vector<Block> blocks, int document, int turn) {
  return {std::move(blocks), document, Dependency::kSame, {turn}};
}
TurnPlan Earlier(std::vector<Block> blocks, int document, int text_turn) {
  return {std::move(blocks), document, Dependency::kEarlier, {text_turn}};
}
TurnPlan Cross(std::vector<Block> blocks, int document, std::vector<int> text_turns) {
  return {std::move(blocks), document, Dependency::kCross, std::move(text_turns)};
}

std::vector<TurnPlan> TurnsOf(Dependency dependency, bool shares_document) {
  const Block a{kA};
  const Block b{kB};
  const Block c{kC};
  const Block a_first{kA, Piece::kFirst};
  const Block a_second{kA, Piece::kSecond};
  const Block b_first{kB, Piece::kFirst};
  const Block b_second{kB, Piece::kSecond};
  const Block c_first{kC, Piece::kFirst};
  const Block c_second{kC, Piece::kSecond};
  switch (dependency) {
    case Dependency::kSame:
      return {Same({a}, kA, 1), Same({b}, kB, 2), Same({c}, kC, 3)};
    case Dependency::kEarlier:
      if (shares_document) return {Same({a}, kA, 1), Earlier({}, kA, 1), Earlier({}, kA, 1)};
      return {Same({a, b}, kA, 1), Earlier({c}, kB, 1), Earlier({}, kC, 2)};
    case Dependency::kCross:
      if (shares_document) return {Same({a_first}, kA, 1), Cross({a_second}, kA, {1, 2}), Cross({}, kA, {1, 2})};
      return {Same({a, b_first}, kA, 1), Cross({b_second, c_first}, kB, {1, 2}), Cross({c_second}, kC, {2, 3})};
  }
  LS_CHECK(false);
  return {};
}

}  // namespace

bool SharesDocument(const DatasetSpec& dataset, const std::vector<PooledItem>& pool, Dependency dependency) {
  if (dataset.kind != ContextKind::kDocument || dependency == Dependency::kSame) return false;
  return std::any_of(pool.begin(), pool.end(),
                     [](const PooledItem& pooled) { return static_cast<int>(pooled.item.questions.size()) >= kTurns; });
}

int ItemsOfDialogue(bool shares_document) { return shares_document ? 1 : kTurns; }

DialoguePlan MakePlan(const DatasetSpec& dataset, Dependency dependency, std::vector<const PooledItem*> items) {
  const bool shares_document = items.size() == 1;
  LS_CHECK(shares_document || static_cast<int>(items.size()) == kTurns);
  DialoguePlan plan;
  plan.items = std::move(items);
  plan.turns = TurnsOf(dependency, shares_document);
  plan.numbered = dataset.kind == ContextKind::kDocument && dependency != Dependency::kSame && !shares_document;
  return plan;
}

}  // namespace loopserve::eval
