// Stored results for other programs and for people. Thread rule: pure functions.
#pragma once

#include <span>
#include <string>

#include "eval/json_fields.h"
#include "eval/played_dialogue.h"
#include "eval/result_store.h"

namespace loopserve::eval {

/// {"schema", "run": {...}, "policies": {NAME: its settings}, "dialogues": [{"id", "policy", "threads", "turns": [...]}
/// or with "error"]}; docs/eval_results.md has the fields.
Json ResultsToJson(const RunInputs& inputs, const RunInputs& policies, std::span<const PlayedDialogue> played);

/// A row for each policy, in the order in which they come first: mean score of its answers, times 100, by position of
/// the question and of all, and how many answers stand behind it. Empty where nothing was scored.
std::string ScoreTable(std::span<const PlayedDialogue> played);

}  // namespace loopserve::eval
