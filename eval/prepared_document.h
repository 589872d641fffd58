// The documents of a dialogue, cut to their room and spread over turns, and the questions that are asked on them.
// Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/context_cut.h"
#include "eval/dialogue_plan.h"

namespace loopserve::eval {

/// A document as a dialogue gives it.
struct PreparedDocument {
  std::vector<std::string> parts;  ///< passages or examples; else one text, or two where it is split over turns
  std::vector<bool> first;         ///< of each part: whether the first of two turns brings it; empty: not split
  int64_t cut_tokens = 0;
};

/// Cuts an item's context to `room_tokens`. is_split: for two turns.
PreparedDocument PrepareDocument(const DatasetSpec& dataset, const PooledItem& pooled, int64_t room_tokens,
                                 bool is_split, const CountTokens& count);

/// One question for each turn, of the documents of the plan: of several questions first those whose answers can be seen
/// in the text; for the later turns of a split document those that neither half alone would answer.
std::vector<const Question*> ChooseQuestions(const DialoguePlan& plan, const std::vector<PreparedDocument>& documents);

}  // namespace loopserve::eval
