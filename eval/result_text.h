// Results as lines of text, small enough to be kept with a program's sources and complete enough for a run to go on
// from them elsewhere: `loopserve eval export --text` and `eval import`. docs/eval_results.md has the form.
// What the datasets' own texts are is not in it: references are left out. Thread rule: pure functions.
#pragma once

#include <istream>
#include <string>

#include "eval/result_store.h"

namespace loopserve::eval {

/// Times to the microsecond; plays that failed are left out: a run plays them again in any case. Reading and writing
/// again gives the same bytes.
std::string ResultsToText(const StoredResults& results);

/// The file may come from anybody. kCorruptData names the line and what is wrong with it; kUnsupported: another schema.
Result<StoredResults> ParseResultsText(std::istream& in, const std::string& name);

}  // namespace loopserve::eval
