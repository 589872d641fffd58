// Which text and which question each turn of a dialogue brings: the shape that its dependency asks for, before any
// words are written. Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "eval/item_pool.h"
#include "eval/task.h"

namespace loopserve::eval {

inline constexpr int kTurns = 3;

/// What a turn brings of a document.
enum class Piece : uint8_t { kWhole, kFirst, kSecond };

struct Block {
  int document = 0;  ///< index into DialoguePlan::items
  Piece piece = Piece::kWhole;
};

struct TurnPlan {
  std::vector<Block> blocks;  ///< may be empty: the turn only asks
  int document = 0;           ///< what is asked about
  Dependency dependency = Dependency::kSame;
  std::vector<int> text_turns;  ///< from 1 on
};

struct DialoguePlan {
  std::vector<const PooledItem*> items;
  std::vector<TurnPlan> turns;  ///< kTurns
  /// Where a dialogue holds several documents of which a question means one, they are numbered.
  bool numbered = false;
  /// How many dialogues took this document before: these take the questions that come next.
  int64_t uses_before = 0;
};

/// Whether dialogues of this dependency ask several questions on one document: where the pool has documents with
/// kTurns questions, and every turn of the dialogue may be about the same text.
bool SharesDocument(const DatasetSpec& dataset, const std::vector<PooledItem>& pool, Dependency dependency);

/// Items that a dialogue takes: 1 or kTurns.
int ItemsOfDialogue(bool shares_document);

/// The shape of a dialogue:
///   same                        A, asks A | B, asks B | C, asks C
///   earlier, several questions  A, asks A | asks A | asks A
///   earlier                     A and B, asks A | C, asks B | asks C
///   cross, several questions    first half of A, asks | second half, asks about A | asks about A
///   cross                       B, first half of A, asks B | second half of A, first of C, asks A | second of C, asks
///   C
/// items: as many as ItemsOfDialogue says.
DialoguePlan MakePlan(const DatasetSpec& dataset, Dependency dependency, std::vector<const PooledItem*> items);

}  // namespace loopserve::eval
