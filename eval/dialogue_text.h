// The words of a dialogue: each turn's prompt, with the question at the beginning, in the middle or at the end. Thread
// rule: pure functions.
#pragma once

#include <vector>

#include "eval/dialogue_file.h"
#include "eval/dialogue_plan.h"
#include "eval/prepared_document.h"

namespace loopserve::eval {

/// The dialogue. documents, questions: of the plan's items, and of its turns. id stays empty.
WrittenDialogue WriteDialogue(const DatasetSpec& dataset, const DialoguePlan& plan,
                              const std::vector<PreparedDocument>& documents,
                              const std::vector<const Question*>& questions, Position position);

}  // namespace loopserve::eval
