#include "src/server/json_reader.h"

#include <gtest/gtest.h>

namespace loopserve::server {
namespace {

TEST(ParseBodyTest, HostileBodiesAreErrors) {
  const std::string deep(60'000, '[');
  const struct {
    const char* name;
    std::string body;
  } kCases[] = {
      {"empty", ""},
      {"no object", "[1]"},
      {"a number", "5"},
      {"cut off", R"({"a": "b)"},
      {"NaN", R"({"a": NaN})"},
      {"infinity", R"({"a": 1e999})"},
      {"deep lists", R"({"a": )" + deep},
      {"deep closed lists", R"({"a": )" + deep + std::string(60'000, ']') + "}"},
      {"deep objects", R"({"a":)" +
                           [] {
                             std::string text;
                             for (int i = 0; i < 60'000; ++i) text += "{\"a\":";
                             return text;
                           }()},
      {"bad UTF-8", "{\"a\": \"\xff\xfe\"}"},
      {"a lone surrogate", R"({"a": "\ud800"})"},
      {"a control character", "{\"a\": \"\x01\"}"},
      {"two bodies", "{}{}"},
      {"trailing text", "{} x"},
  };
  for (const auto& c : kCases) {
    const auto json = ParseBody(c.body);
    ASSERT_FALSE(json.ok()) << c.name;
    EXPECT_EQ(json.status().code(), StatusCode::kInvalidArgument) << c.name;
    EXPECT_LT(json.status().message().size(), 300u) << c.name;
  }
}

TEST(ParseBodyTest, BracketsInTextsAreNoNesting) {
  std::string body = R"({"a": ")" + std::string(10'000, '[') + R"(\"[[", "b": [[1]]})";
  EXPECT_TRUE(ParseBody(body).ok());
  std::string allowed = R"({"a": )" + std::string(kMaxJsonDepth - 1, '[') + std::string(kMaxJsonDepth - 1, ']') + "}";
  EXPECT_TRUE(ParseBody(allowed).ok());
}

TEST(FieldsTest, TypesAndRanges) {
  const auto json = ParseBody(
      R"({"t": "x", "i": 3, "f": 3.0, "h": 3.5, "big": 18446744073709551615, "neg": -1, "b": true, "n": null,
          "l": [1, 2], "o": {}})");
  ASSERT_TRUE(json.ok());
  const Fields fields(*json, "in.");
  EXPECT_EQ(**fields.Text("t"), "x");
  EXPECT_EQ(**fields.Int("i", 0, 5), 3);
  EXPECT_EQ(**fields.Int("f", 0, 5), 3);
  EXPECT_EQ(**fields.Number("h"), 3.5);
  EXPECT_EQ(**fields.Bool("b"), true);
  EXPECT_FALSE(fields.Text("n")->has_value());
  EXPECT_FALSE(fields.Int("missing", 0, 1)->has_value());
  EXPECT_EQ(fields.Int("neg", 0, 5).status().message(), "in.neg must be a whole number from 0 to 5");
  EXPECT_FALSE(fields.Int("h", 0, 5).ok());
  EXPECT_FALSE(fields.Int("big", INT64_MIN, INT64_MAX).ok());
  EXPECT_FALSE(fields.Int("t", 0, 5).ok());
  EXPECT_FALSE(fields.Text("i").ok());
  EXPECT_FALSE(fields.Text("t", 0).ok());
  EXPECT_FALSE(fields.Bool("i").ok());
  EXPECT_FALSE(fields.Number("b").ok());
  EXPECT_FALSE(fields.List("l", 1).ok());
  EXPECT_FALSE(fields.List("o", 9).ok());
  EXPECT_FALSE(fields.Object("l").ok());
}

TEST(ToTextTest, BytesThatAreNoTextAreReplaced) { EXPECT_EQ(ToText({{"a", "\xff"}}), "{\"a\":\"\xEF\xBF\xBD\"}"); }

}  // namespace
}  // namespace loopserve::server
