// `loopserve bench`: the speed table (bench/speed_table.h) from the command line, and its JSON.
// Thread rule: main thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/speed_table.h"
#include "src/cli/json_output.h"

namespace loopserve {

/// The cases in the order in which they were asked for: each context with `new_tokens`, then each whole prompt.
std::vector<bench::SpeedCase> SpeedCases(const std::vector<int64_t>& contexts, int64_t new_tokens,
                                         const std::vector<int64_t>& whole_prompts);

/// {"rows": [...], "skipped": [...]}; null where an engine has no such figure.
Json SpeedReportToJson(const bench::SpeedReport& report, const bench::ModelCost& cost);

}  // namespace loopserve
