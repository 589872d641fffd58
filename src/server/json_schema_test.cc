#include "src/server/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/server/test_grammar.h"

namespace loopserve::server {
namespace {

using testing::HasSubstr;

Result<std::string> Grammar(const std::string& schema) {
  const auto json = ParseBody("{\"s\": " + schema + "}");
  EXPECT_TRUE(json.ok()) << schema << json.status().message();
  return json.ok() ? SchemaGrammar((*json)["s"], "schema") : json.status();
}

struct Case {
  const char* schema;
  std::vector<std::string> yes, no;
};

TEST(JsonSchemaTest, AllowsWhatTheSchemaDoesAndNothingElse) {
  const Case kCases[] = {
      {R"({"type": "string"})", {R"("")", R"("a é € \" \n")"}, {"", "x", "\"\n\"", "\"a", R"("a"b)", R"("\u0041")"}},
      {R"({"type": "string", "minLength": 2, "maxLength": 3})", {R"("ab")", R"("é€\n")"}, {R"("a")", R"("abcd")"}},
      {R"({"type": "integer"})", {"0", "-7", "123"}, {"01", "1.5", "--1", "1e3", "12345678901234567"}},
      {R"({"type": "integer", "minimum": 95, "maximum": 250})",
       {"95", "99", "100", "199", "200", "249", "250"},
       {"94", "9", "251", "300", "1000", "095", "-100"}},
      {R"({"type": "integer", "exclusiveMinimum": -12, "exclusiveMaximum": 5})",
       {"-11", "-9", "-1", "0", "4"},
       {"-12", "5", "-0", "10"}},
      {R"({"type": "number", "minimum": 0})", {"0", "1.25", "3e-5"}, {"-1", ".5", "1.", "1e"}},
      {R"({"type": ["boolean", "null"]})", {"true", "false", "null"}, {"0", "\"true\""}},
      {R"({"enum": ["red", "rot", "r", 7, {"a": [1, null]}]})",
       {R"("red")", R"("rot")", R"("r")", "7", R"({"a": [1, null]})"},
       {R"("ro")", R"("reds")", "77", "8"}},
      {R"({"const": "x\"y"})", {R"("x\"y")"}, {R"("x"y")"}},
      {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
       {"[1]", "[1, 2, 3]"},
       {"[]", "[1, 2, 3, 4]", "[1,2]", "[1, ]"}},
      {R"({"type": "array", "items": {"type": "integer"}, "maxItems": 0})", {"[]"}, {"[1]"}},
      {R"({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]})",
       {R"([1, "a"])"},
       {"[1]", R"(["a", 1])"}},
      {R"({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "null"}}, "required": ["b", "a"],
           "additionalProperties": false})",
       {R"({"b": 1, "a": null})"},
       {R"({"a": null, "b": 1})", R"({"b": 1})", R"({"b": 1, "a": null, "c": 1})", "{}"}},
      {R"({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}},
           "required": ["b"]})",
       {R"({"b": null})", R"({"a": null, "b": null})", R"({"b": null, "c": null})",
        R"({"a": null, "b": null, "c": null})"},
       {"{}", R"({"a": null})", R"({"a": null, "c": null})", R"({"b": null, })", R"({, "b": null})"}},
      {R"({"type": "object", "properties": {"a": {"type": "null"}}})", {"{}", R"({"a": null})"}, {R"({"x": null})"}},
      {R"({"type": "object", "additionalProperties": {"type": "integer"}})",
       {"{}", R"({"x": 1, "y z": 2})"},
       {R"({"x": "1"})"}},
      {R"({"type": "object", "required": ["k"]})", {R"({"k": [1, {"z": 2}]})"}, {"{}"}},
      {R"({"type": "object", "additionalProperties": false})", {"{}"}, {R"({"a": 1})"}},
      {"true", {"1", R"({"a": [true, {"b": "c"}]})", R"("x")"}, {"", "nul"}},
      {R"({"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"a": {"type": "null"}}}]})",
       {"1", "{}"},
       {"\"a\""}},
      {R"({"oneOf": [{"type": "object", "properties": {"k": {"const": "x"}}, "required": ["k"]},
                     {"type": "object", "properties": {"k": {"const": "y"}}, "required": ["k"]}, {"type": "null"}]})",
       {R"({"k": "x"})", R"({"k": "y"})", "null"},
       {R"({"k": "z"})"}},
      {R"({"$defs": {"list": {"type": "object", "properties": {"v": {"type": "integer"},
           "next": {"anyOf": [{"$ref": "#/$defs/list"}, {"type": "null"}]}}, "required": ["v", "next"]}}, "$ref": "#/$defs/list"})",
       {R"({"v": 1, "next": null})", R"({"v": 1, "next": {"v": 2, "next": null}})"},
       {R"({"v": 1})"}},
      {R"({"type": "object", "properties": {"a~b/c": {"$ref": "#/$defs/x~1y"}}, "required": ["a~b/c"], "$defs": {"x/y": {"type": "null"}}})",
       {R"({"a~b/c": null})"},
       {"{}"}},
      {R"({"allOf": [{"type": "null"}], "title": "t", "description": "d", "default": 3})", {"null"}, {"3"}},
      {R"({"type": "string", "format": "date-time"})",
       {R"("2024-02-28T23:59:59Z")", R"("2024-02-28T23:59:59.5+01:00")"},
       {R"("2024-13-01T00:00:00Z")", R"("2024-02-28")"}},
      {R"({"type": "string", "format": "uuid"})", {R"("01234567-89ab-cdef-0123-456789abcdef")"}, {R"("x")"}},
      {R"({"type": "string", "format": "ipv4"})", {R"("192.168.0.255")"}, {R"("192.168.0.256")", R"("1.2.3")"}},
      {R"({"type": "string", "format": "email"})", {R"("a.b@c-d.org")"}, {R"("a@b")", R"("@b.org")"}},
  };
  for (const Case& c : kCases) {
    const auto grammar = Grammar(c.schema);
    for (const std::string& text : c.yes) EXPECT_TRUE(HasText(grammar, text)) << c.schema << "\n" << text;
    for (const std::string& text : c.no) EXPECT_FALSE(HasText(grammar, text)) << c.schema << "\n" << text;
  }
}

TEST(JsonSchemaTest, PatternsAreEnforcedWhole) {
  const struct {
    const char* pattern;
    std::vector<std::string> yes, no;
  } kCases[] = {
      {R"(^[a-z]+(-[a-z0-9]+)*$)", {"\"ab\"", "\"ab-c1-d\""}, {"\"\"", "\"ab-\"", "\"AB\""}},
      {R"(^\d{3}-\d{4}$)", {"\"555-1234\""}, {"\"555-123\"", "\"5555-1234\""}},
      {R"(^(foo|ba[rz])?x{2,}$)", {"\"xx\"", "\"fooxxx\"", "\"bazxx\""}, {"\"x\"", "\"foox\""}},
      {R"(^[^"\\]a\.b\x41é$)", {"\"-a.bAé\""}, {"\"\\\"a.bAé\"", "\"-axbAé\""}},
      {R"(^a"b\\c$)", {R"("a\"b\\c")"}, {R"("a"b\c")"}},
      {R"(^.\n\s\S\w\W\D$)", {R"("x\n\tyz- ")"}, {R"("\n\n\tyz- ")"}},
      {R"(^(?:ab)+?$)", {"\"abab\""}, {"\"aba\""}},
      {R"(^$)", {"\"\""}, {"\"a\""}},
      {R"(^[\]\-a]$)", {"\"]\"", "\"-\"", "\"a\""}, {"\"b\""}},
  };
  for (const auto& c : kCases) {
    const auto grammar = SchemaGrammar({{"type", "string"}, {"pattern", c.pattern}}, "schema");
    for (const std::string& text : c.yes) EXPECT_TRUE(HasText(grammar, text)) << c.pattern << "\n" << text;
    for (const std::string& text : c.no) EXPECT_FALSE(HasText(grammar, text)) << c.pattern << "\n" << text;
  }
}

TEST(JsonSchemaTest, PatternsThatCannotBeEnforcedAreRefused) {
  for (const char* pattern : {"abc",
                              "^abc",
                              "abc$",
                              "^abc\\$",
                              "^(?=a)b$",
                              "^(?<n>a)$",
                              "^a\\b$",
                              "^(a)\\1$",
                              "^\\p{L}$",
                              "^a**$",
                              "^*a$",
                              "^a{5000}$",
                              "^a{3,1}$",
                              "^a{x}$",
                              "^(a*)*$",
                              "^(|a){1,9}$",
                              "^[a$",
                              "^(a$",
                              "^a)$",
                              "^[z-a]$",
                              "^a^b$",
                              "^a$b$",
                              "^[]$",
                              "^]$",
                              "^a{$",
                              "^\\u00$",
                              "^[[:alpha:]]$",
                              "^((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((a))))))))))))))))))))))))))"
                              "))))))))))))))))))))))))))))))))))$"}) {
    const auto grammar = SchemaGrammar({{"type", "string"}, {"pattern", pattern}}, "schema");
    EXPECT_EQ(grammar.status().code(), StatusCode::kUnsupported) << pattern << grammar.status().message();
  }
  EXPECT_FALSE(SchemaGrammar({{"pattern", "^" + std::string(2000, 'a') + "$"}}, "schema").ok());
}

TEST(JsonSchemaTest, WhatIsNotSupportedIsNamed) {
  const struct {
    const char* schema;
    const char* named;
  } kCases[] = {
      {R"({"type": "object", "properties": {"a": {"type": "string", "x-mine": 1}}})", "schema.properties.a.x-mine"},
      {R"({"not": {"type": "null"}})", "schema.not"},
      {R"({"type": "object", "patternProperties": {}})", "schema.patternProperties"},
      {R"({"type": "array", "uniqueItems": true})", "schema.uniqueItems"},
      {R"({"type": "number", "maximum": 5})", "schema.maximum"},
      {R"({"type": "integer", "multipleOf": 5})", "schema.multipleOf"},
      {R"({"type": "string", "format": "regex"})", "schema.format"},
      {R"({"type": "string", "pattern": "^a$", "minLength": 3})", "schema"},
      {R"({"type": "string", "maxLength": 1000000})", "schema.maxLength"},
      {R"({"type": "number", "if": {}})", "schema.if"},
      {R"({"allOf": [{"type": "null"}, {"type": "integer"}]})", "schema.allOf"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "schema.oneOf"},
      {R"({"anyOf": [{"type": "integer"}], "type": "integer"})", "schema.type"},
      {R"({"$ref": "https://example.org/x"})", "schema.$ref"},
      {R"({"$ref": "#/$defs/none"})", "schema.$ref"},
      {R"({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}})", "schema"},
      {R"({"$ref": "#"})", "schema"},
      {R"({"type": "text"})", "schema.type"},
      {R"({"type": []})", "schema.type"},
      {R"({"enum": []})", "schema.enum"},
      {R"({"type": "integer", "enum": ["a"]})", "schema.enum"},
      {R"({"type": "object", "required": ["a"], "additionalProperties": false, "properties": {"b": true}})",
       "schema.required"},
      {R"({"type": "object", "properties": {"a": false}})", "schema.properties.a"},
      {R"({"type": "integer", "minimum": 1e300})", "schema.minimum"},
      {R"({"type": "integer", "minimum": 5, "maximum": 4})", "schema"},
      {R"({"type": "array", "minItems": 5, "maxItems": 4})", "schema.minItems"},
      {R"({"type": "array", "minItems": -1})", "schema.minItems"},
      {"[]", "schema"},
      {"7", "schema"},
  };
  for (const auto& c : kCases) {
    const auto grammar = Grammar(c.schema);
    ASSERT_FALSE(grammar.ok()) << c.schema;
    EXPECT_THAT(grammar.status().message(), testing::StartsWith(c.named)) << c.schema;
  }
}

// References that fan out would take the grammar engine for ever; each takes a moment here.
TEST(JsonSchemaTest, HostileSchemasAreRefusedInBoundedTime) {
  JsonIn doubling = {{"$ref", "#/$defs/d0"}};
  for (int i = 0; i < 60; ++i) {
    const std::string next = "#/$defs/d" + std::to_string(i + 1);
    doubling["$defs"]["d" + std::to_string(i)] = {{"anyOf", {{{"$ref", next}}, {{"$ref", next}}}}};
  }
  doubling["$defs"]["d60"] = {{"type", "null"}};
  JsonIn wide = {{"type", "object"}};
  for (int i = 0; i < 900; ++i) wide["properties"]["p" + std::to_string(i)] = {{"type", "null"}};
  JsonIn large = wide;
  for (int i = 0; i < 900; ++i)
    large["properties"]["p" + std::to_string(i)] = {{"anyOf", JsonIn(std::vector<JsonIn>(5, {{"type", "null"}}))}};
  JsonIn many_values;
  for (int i = 0; i < 1001; ++i) many_values["enum"].push_back(i);
  JsonIn chain = {{"$ref", "#/$defs/c0"}};
  for (int i = 0; i < 990; ++i)
    chain["$defs"]["c" + std::to_string(i)] = {{"$ref", "#/$defs/c" + std::to_string(i + 1)}};
  chain["$defs"]["c990"] = {{"type", "null"}};
  JsonIn repeated = {{"type", "array"}};
  for (int i = 0; i < 3000; ++i) repeated["prefixItems"].push_back({{"type", "string"}, {"maxLength", 2000}});
  // Apart by the last property alone, if anything was looked at a million times for it.
  JsonIn choice, names = JsonIn::array();
  for (int i = 0; i < 900; ++i) names.push_back("n" + std::to_string(i));
  for (int i = 0; i < 100; ++i) {
    JsonIn one = {{"type", "object"}, {"required", names}};
    for (int j = 0; j < 900; ++j) one["properties"]["n" + std::to_string(j)] = {{"const", j == 899 ? i : 0}};
    choice["oneOf"].push_back(one);
  }
  for (const JsonIn& schema : {doubling, wide, large, many_values, repeated, choice}) {
    const auto grammar = SchemaGrammar(schema, "schema");
    EXPECT_EQ(grammar.status().code(), StatusCode::kUnsupported) << grammar.status().message();
  }
  EXPECT_TRUE(HasText(SchemaGrammar(chain, "schema"), "null"));
  JsonIn deep = {{"type", "null"}};
  for (int i = 0; i < 45; ++i) deep = {{"type", "array"}, {"items", deep}};
  EXPECT_TRUE(SchemaGrammar(deep, "schema").ok());
}

TEST(JsonSchemaTest, AnyObject) {
  const auto grammar = JsonObjectGrammar();
  EXPECT_TRUE(HasText(grammar, "{}"));
  EXPECT_TRUE(HasText(grammar, R"({"a": [1, {"b": "c"}], "d": -1.5e-3})"));
  EXPECT_FALSE(HasText(grammar, "[]"));
  EXPECT_FALSE(HasText(grammar, R"({"a": 1,})"));
}

}  // namespace
}  // namespace loopserve::server
