// Three-turn dialogues made of a dataset's items, for every position of the question and every dependency between
// turns. The same items, options and token counts give the same dialogues, byte for byte.
// Thread rule: pure functions.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "eval/context_cut.h"
#include "eval/dialogue_file.h"
#include "eval/longbench.h"
#include "loopserve/status.h"

namespace loopserve::eval {

struct BuildOptions {
  std::vector<Position> positions = AllOf<Position>();
  std::vector<Dependency> dependencies = AllOf<Dependency>();
  int samples = 1;  ///< dialogues of each position and dependency; they differ in their items
  /// The samples of a position take the dependencies in turn, beginning with another for each dataset: `samples` is
  /// then their number for each position.
  bool mix = false;
  int64_t tokens = 4096;  ///< most tokens of a dialogue: see TokensOfDialogue
  uint64_t seed = 0;
  const std::atomic<bool>* cancel = nullptr;  ///< looked at between dialogues: kCancelled; may be null
};

struct BuiltDialogues {
  std::vector<WrittenDialogue> dialogues;
  int64_t turns = 0;
  int64_t cut_turns = 0;       ///< whose question is about a text that was cut
  int64_t cut_tokens = 0;      ///< of these texts
  int64_t reused_items = 0;    ///< times that an item was taken again, as there were not enough
  int64_t longest_tokens = 0;  ///< of a dialogue, as TokensOfDialogue counts
};

/// What a dialogue takes of a context: its turns, for each answer the larger of max_answer_tokens and its longest
/// reference, and an allowance for the chat template.
int64_t TokensOfDialogue(const WrittenDialogue& dialogue, const CountTokens& count);

/// Dialogues of one dataset (of those in Datasets()), called DATASET-DEPENDENCY-SAMPLE-POSITION. Those that differ in
/// the position alone have the same texts and questions, so that positions can be compared in pairs. Errors:
/// kInvalidArgument (no or too few items, or too few tokens for any text), which says what would be enough.
Result<BuiltDialogues> BuildDialogues(const DatasetSpec& dataset, std::vector<Item> items, const BuildOptions& options,
                                      const CountTokens& count);

}  // namespace loopserve::eval
