// Stored results for people. Thread rule: pure functions.
#pragma once

#include <span>
#include <string>

#include "eval/played_dialogue.h"

namespace loopserve::eval {

/// A row for each policy, in the order in which they come first: mean score of its answers, times 100, by position of
/// the question and of all, and how many answers stand behind it. Empty where nothing was scored.
std::string ScoreTable(std::span<const PlayedDialogue> played);

}  // namespace loopserve::eval
