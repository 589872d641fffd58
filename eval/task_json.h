// The "task" of a turn in a file of dialogues. Thread rule: pure functions.
#pragma once

#include <string>

#include "eval/json_fields.h"
#include "eval/task.h"
#include "loopserve/status.h"

namespace loopserve::eval {

/// where: of the turn, as in " of turn 2". kCorruptData names the field; unknown fields are errors.
Result<TurnTask> TakeTask(const Json& value, const std::string& where);
/// Fields that have their default are left out, where they may be.
Json TaskToJson(const TurnTask& task);

}  // namespace loopserve::eval
