// JSON schemas as rules of a grammar, so that an answer cannot be anything else. Fails closed: a keyword that is not
// understood, or cannot be enforced in bounded time, is an error that names it and where it stands. An answer may be
// one of fewer than the schema allows (objects have their properties in the schema's order), never of more.
// Thread rule: pure functions.
#pragma once

#include <string>

#include "src/server/grammar_writer.h"
#include "src/server/json_grammar.h"
#include "src/server/json_reader.h"

namespace loopserve::server {

inline constexpr size_t kMaxSchemaNodes = 4000;

/// Adds the rule of `schema`, whose references are into itself. `where`: put before paths in errors, as
/// "response_format.json_schema.schema". Errors: kInvalidArgument (no schema), kUnsupported.
Result<int> SchemaRule(const JsonIn& schema, const std::string& where, GrammarWriter& writer, JsonGrammar& json);

/// The whole grammar of a schema, and that of any JSON object.
Result<std::string> SchemaGrammar(const JsonIn& schema, const std::string& where);
Result<std::string> JsonObjectGrammar();

}  // namespace loopserve::server
