// Dialogues built of made-up items, and what the tests of the builder ask of them.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eval/dialogue_builder.h"
#include "eval/test_items.h"

namespace loopserve::eval {

inline const DatasetSpec& Dataset(std::string_view name) { return *FindDataset(name); }

inline BuiltDialogues Build(const DatasetSpec& dataset, std::vector<Item> items, const BuildOptions& options) {
  Result<BuiltDialogues> built = BuildDialogues(dataset, std::move(items), options, CountWords);
  EXPECT_TRUE(built.ok()) << dataset.name << ": " << built.status().message();
  return built.ok() ? std::move(*built) : BuiltDialogues();
}

inline std::string Lines(const BuiltDialogues& built) {
  std::string lines;
  for (const WrittenDialogue& dialogue : built.dialogues) lines += FormatDialogue(dialogue) + "\n";
  return lines;
}

inline BuildOptions One(Position position, Dependency dependency, int64_t tokens) {
  BuildOptions options;
  options.positions = {position};
  options.dependencies = {dependency};
  options.tokens = tokens;
  return options;
}

/// The letter of the item that a turn asks about.
inline std::string AskedItem(const DialogueTurn& turn) { return turn.task->source_ids.front().substr(3, 1); }

}  // namespace loopserve::eval
