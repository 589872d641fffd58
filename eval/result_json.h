// Stored results for other programs. Thread rule: pure functions.
#pragma once

#include "eval/json_fields.h"
#include "eval/played_dialogue.h"
#include "eval/result_store.h"

namespace loopserve::eval {

/// {"schema", "run": {...}, "policies": {NAME: its settings}, "dialogues": [{"id", "policy", "threads", "turns": [...]}
/// or with "error"]}; docs/eval_results.md has the fields.
Json ResultsToJson(const StoredResults& results);

/// One field of a turn; null where it is empty.
Json FieldToJson(const PlayedTurn& turn, const TurnField& field);
/// An object with these values, in their order.
Json PairsToJson(const RunInputs& pairs);

}  // namespace loopserve::eval
