// Regular expressions of JSON schemas as rules for the text within quotes. What is understood: literals, classes,
// groups, alternatives, repetitions, \d \w \s and escapes; the pattern has to begin with ^ and end with $. Anything
// else is refused: kUnsupported names it. Thread rule: one owner.
#pragma once

#include <string>

#include "src/server/json_grammar.h"

namespace loopserve::server {

inline constexpr size_t kMaxPatternBytes = 1024;

/// The rule of a whole JSON text, quotes included.
Result<int> PatternRule(const std::string& pattern, GrammarWriter& writer, JsonGrammar& json);

}  // namespace loopserve::server
