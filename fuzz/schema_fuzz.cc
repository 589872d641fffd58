// Fuzz target for what reads JSON from strangers without any model: the first byte says whether the rest is read as
// JSON, as a JSON schema or as a pattern that becomes a grammar, or as an answer with tool calls in it. Fast; as
// server_fuzz.cc says, with schema_fuzz in place of server_fuzz.
#include <string>
#include <vector>

#include "src/base/check.h"
#include "src/server/json_schema.h"
#include "src/server/tool_call_reader.h"
#include "src/tokenizer/grammar.h"

namespace loopserve::server {
namespace {

/// What becomes a grammar can be used as one.
void CheckGrammar(const Result<std::string>& gbnf) {
  if (!gbnf.ok()) {
    LS_CHECK(!gbnf.status().message().empty());
    return;
  }
  static const GrammarVocab none;
  auto matcher = GrammarMatcher::Create(none, *gbnf, "");
  if (!matcher.ok()) {
    LS_CHECK(matcher.status().code() == StatusCode::kUnsupported);
    return;
  }
  for (const char* text : {"{", "\"", "a", "\"", ":", " ", "1", "}"}) {
    if (!(*matcher)->AcceptText(text).ok()) break;
  }
}

/// Whatever the answer, cut anywhere: the same text and calls.
void CheckReader(const std::string& answer) {
  static const ToolCallForm form{true, "<t>\n", "\n</t>\n<t>\n", "\n</t>", "{\"n\": \"", "\", \"a\": ", "}"};
  const ReadAnswer whole = ReadToolCalls(form, answer);
  std::string text, calls;
  ToolCallReader reader(form);
  for (size_t i = 0; i < answer.size(); ++i) {
    for (const ToolEvent& event : reader.Push(answer.substr(i, 1), i + 1 == answer.size())) {
      if (event.kind == ToolEvent::Kind::kText) text += event.text;
      if (event.kind == ToolEvent::Kind::kArguments) calls += event.text;
    }
  }
  std::string whole_calls;
  for (const ToolCall& call : whole.calls) whole_calls += call.arguments;
  LS_CHECK(text == whole.text && calls == whole_calls);
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::vector<std::string> bodies = {
      R"({"a": [1, -2.5e3, "x\u00e9", {"b": null}], "c": true})",
      R"({"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]+(-[0-9]{1,3})?$"}, "b": {"$ref": "#/$defs/x"}},
          "required": ["a"], "$defs": {"x": {"anyOf": [{"type": "integer", "minimum": 3, "maximum": 900}, {"enum": ["p", "q"]}]}}})",
      R"({"oneOf": [{"type": "array", "prefixItems": [{"const": 1}], "minItems": 1}, {"type": ["string", "null"], "format": "date"},
          {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}]})",
      R"(^(?:[^a-c"\\]|\d\.\w){2,5}x*$)",
      R"(^\u00e9[\x41-\]]+?|a{3,}$)",
      "text <t>\n{\"n\": \"f\", \"a\": {\"x\": \"}\\\"\"}}\n</t>\n<t>\n{\"n\": \"g\", \"a\": {}}\n</t>"};
  std::vector<std::string> seeds;
  for (const std::string& body : bodies) {
    for (char choice = 0; choice < 4; ++choice) seeds.push_back(choice + body);
  }
  return seeds;
}

}  // namespace loopserve::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace loopserve::server;
  if (size == 0) return 0;
  const std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto json = data[0] % 4 < 2 ? ParseBody(body) : JsonIn::object();
  LS_CHECK(json.ok() || !json.status().message().empty());
  switch (data[0] % 4) {
    case 0:
      if (json.ok()) LS_CHECK(ParseBody(OneLine(*json)).ok());
      break;
    case 1:
      if (json.ok()) CheckGrammar(SchemaGrammar(*json, "schema"));
      break;
    case 2:
      CheckGrammar(SchemaGrammar({{"type", "string"}, {"pattern", body}}, "schema"));
      break;
    default:
      CheckReader(body);
  }
  return 0;
}
