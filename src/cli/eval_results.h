// Where a run's results are written beside its database. Thread rule: main thread.
#pragma once

#include <string>

#include "eval/result_store.h"

namespace loopserve {

/// DIR/results.json.
std::string ResultsJsonPath(const std::string& dir);
/// path: a file, or "-" for stdout.
Status WriteResultsJson(const std::string& path, const eval::StoredResults& results);

}  // namespace loopserve
