// `loopserve score`: how well a model under a policy predicts a text, and how far it is from a reference.
// Thread rule: main thread.
#pragma once

#include <string>

#include "bench/text_score.h"
#include "src/cli/json_output.h"

namespace loopserve {

/// The figures as JSON; null where there is no reference, or where a policy has none. Keys that say what was compared
/// are added by the command.
Json TextScoreToJson(const bench::TextScore& score);

/// The figures for people.
std::string FormatTextScore(const bench::TextScore& score, const std::string& against);

}  // namespace loopserve
