// Parts of a JSON schema that need nothing of the rest: references, whether schemas exclude each other, texts, numbers,
// counts. Used by json_schema.cc alone. Thread rule: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "src/server/json_grammar.h"
#include "src/server/json_reader.h"

namespace loopserve::server {

inline constexpr std::string_view kNumberWords[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"};

/// What "#/$defs/x" means in `root`.
Result<const JsonIn*> ResolveReference(const JsonIn& root, const JsonIn& reference, const std::string& where);

/// Ok where no value can be one of two of these schemas, as far as that is plain to see.
Status CheckApart(const JsonIn& root, const JsonIn& parts, const std::string& name);

struct CountBounds {
  int min = 0, max = GrammarWriter::kNoLimit;
};
/// minItems and maxItems, or minLength and maxLength.
Result<CountBounds> BoundsOf(const JsonIn& schema, const char* min_word, const char* max_word,
                             const std::string& where);

/// The rules of texts and numbers.
Result<int> StringRule(const JsonIn& schema, const std::string& where, GrammarWriter& writer, JsonGrammar& json);
Result<int> NumberRule(const JsonIn& schema, const std::string& where, JsonGrammar& json);
Result<int> IntegerRule(const JsonIn& schema, const std::string& where, JsonGrammar& json);

}  // namespace loopserve::server
