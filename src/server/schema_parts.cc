#include "src/server/schema_parts.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "src/server/json_pattern.h"

namespace loopserve::server {
namespace {

using Writer = GrammarWriter;

constexpr int kMaxReferences = 16;  // that lead to each other

struct Format {
  const char* name;
  const char* pattern;
};
constexpr Format kFormats[] = {
    {"date", R"(^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$)"},
    {"time", R"(^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$)"},
    {"date-time",
     R"(^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$)"},
    {"uuid", R"(^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$)"},
    {"ipv4", R"(^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)$)"},
    {"email",
     R"(^[A-Za-z0-9]+([._+-][A-Za-z0-9]+){0,8}@[A-Za-z0-9]+(-[A-Za-z0-9]+){0,8}(\.[A-Za-z0-9]+(-[A-Za-z0-9]+){0,8}){1,8}$)"}};

Status Refused(const std::string& what) { return Status(StatusCode::kUnsupported, what); }
Status Invalid(const std::string& what) { return Status(StatusCode::kInvalidArgument, what); }

/// Follows references to something else; null where there is nothing else.
const JsonIn* Followed(const JsonIn& root, const JsonIn& schema) {
  const JsonIn* at = &schema;
  for (int i = 0; i < kMaxReferences; ++i) {
    if (!at->is_object() || !at->contains("$ref")) return at;
    const auto next = ResolveReference(root, at->at("$ref"), "");
    if (!next.ok()) return nullptr;
    at = *next;
  }
  return nullptr;
}

/// The values that a schema allows at most, as text, where it says so by const or by a short enum; else empty.
std::set<std::string> ValuesOf(const JsonIn& schema) {
  constexpr size_t kMaxValues = 1000;
  std::set<std::string> values;
  if (!schema.is_object()) return values;
  if (schema.contains("const")) return {OneLine(schema["const"])};
  if (schema.contains("enum") && schema["enum"].is_array() && schema["enum"].size() <= kMaxValues) {
    for (const JsonIn& value : schema["enum"]) values.insert(OneLine(value));
  }
  return values;
}

/// What tells a schema's values from another's, found once for all that it is compared with.
struct Marks {
  std::set<std::string> values;                          ///< all that it allows; empty: not known
  std::string type;                                      ///< empty: several, or not known
  std::map<std::string, std::set<std::string>> members;  ///< of required properties whose values are known
};

Marks MarksOf(const JsonIn& root, const JsonIn& part) {
  constexpr size_t kMaxNames = 1000, kMaxAllValues = 5000;
  size_t n_values = 0;
  Marks marks;
  const JsonIn* schema = Followed(root, part);
  if (schema == nullptr || !schema->is_object()) return marks;
  marks.values = ValuesOf(*schema);
  if (schema->contains("type") && (*schema)["type"].is_string()) marks.type = (*schema)["type"].get<std::string>();
  const auto properties = schema->find("properties"), required = schema->find("required");
  if (properties == schema->end() || !properties->is_object() || required == schema->end() || !required->is_array() ||
      required->size() > kMaxNames) {
    return marks;
  }
  for (const JsonIn& name : *required) {
    if (!name.is_string()) continue;
    const auto property = properties->find(name.get_ref<const std::string&>());
    if (property == properties->end()) continue;
    std::set<std::string> values = ValuesOf(*property);
    n_values += values.size();
    if (n_values > kMaxAllValues) break;
    if (!values.empty()) marks.members[name.get<std::string>()] = std::move(values);
  }
  return marks;
}

/// Whether no value can be one of both, as far as that is plain to see.
bool AreApart(const Marks& x, const Marks& y) {
  const auto disjoint = [](const std::set<std::string>& p, const std::set<std::string>& q) {
    return !p.empty() && !q.empty() && std::ranges::none_of(p, [&](const std::string& v) { return q.contains(v); });
  };
  if (disjoint(x.values, y.values)) return true;
  const auto is_number = [](const std::string& type) { return type == "number" || type == "integer"; };
  if (x.type.empty() || y.type.empty()) return false;
  if (x.type != y.type) return !(is_number(x.type) && is_number(y.type));
  if (x.type != "object") return false;
  return std::ranges::any_of(x.members, [&](const auto& member) {
    const auto other = y.members.find(member.first);
    return other != y.members.end() && disjoint(member.second, other->second);
  });
}

Result<std::optional<int64_t>> Count(const JsonIn& schema, const char* word, const std::string& where) {
  const auto value = schema.find(word);
  if (value == schema.end()) return std::optional<int64_t>();
  const std::optional<int64_t> count = AsInt(*value, 0, INT64_MAX);
  if (!count) return Invalid(where + "." + word + " must be a whole number from 0 on");
  if (*count > Writer::kMaxRepeats) {
    return Refused(where + "." + word + " above " + std::to_string(Writer::kMaxRepeats) + " cannot be enforced");
  }
  return count;
}

}  // namespace

Result<const JsonIn*> ResolveReference(const JsonIn& root, const JsonIn& reference, const std::string& where) {
  if (!reference.is_string()) return Invalid(where + ".$ref must be a string");
  const auto& text = reference.get_ref<const std::string&>();
  if (text != "#" && !text.starts_with("#/"))
    return Refused(where + ".$ref: only references within the schema (#/...) are supported");
  const JsonIn* at = &root;
  for (size_t from = 2; from <= text.size() && text.size() > 1;) {
    const size_t slash = std::min(text.find('/', from), text.size());
    std::string name;
    for (size_t i = from; i < slash; ++i) {
      const bool escape = text[i] == '~' && i + 1 < slash && (text[i + 1] == '0' || text[i + 1] == '1');
      name += escape ? (text[++i] == '0' ? '~' : '/') : text[i];
    }
    if (!at->is_object() || !at->contains(name))
      return Invalid(where + ".$ref leads to nothing: " + text.substr(0, 200));
    at = &at->at(name);
    from = slash + 1;
  }
  return at;
}

Status CheckApart(const JsonIn& root, const JsonIn& parts, const std::string& name) {
  if (parts.size() > 100) return Refused(name + " has more than 100 schemas");
  std::vector<Marks> marks;
  for (const JsonIn& part : parts) marks.push_back(MarksOf(root, part));
  for (size_t i = 0; i < parts.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (!AreApart(marks[i], marks[j])) {
        return Refused(name + " cannot be enforced: a value may be one of both [" + std::to_string(j) + "] and [" +
                       std::to_string(i) + "]; say anyOf");
      }
    }
  }
  return Status::Ok();
}

Result<CountBounds> BoundsOf(const JsonIn& schema, const char* min_word, const char* max_word,
                             const std::string& where) {
  LS_ASSIGN_OR_RETURN(const auto min, Count(schema, min_word, where));
  LS_ASSIGN_OR_RETURN(const auto max, Count(schema, max_word, where));
  if (min && max && *min > *max) return Invalid(where + "." + min_word + " is above " + max_word);
  return CountBounds{static_cast<int>(min.value_or(0)), static_cast<int>(max.value_or(Writer::kNoLimit))};
}

Result<int> StringRule(const JsonIn& schema, const std::string& where, GrammarWriter& writer, JsonGrammar& json) {
  LS_ASSIGN_OR_RETURN(const CountBounds length, BoundsOf(schema, "minLength", "maxLength", where));
  const bool has_length = schema.contains("minLength") || schema.contains("maxLength");
  const bool has_pattern = schema.contains("pattern"), has_format = schema.contains("format");
  if (has_length + has_pattern + has_format > 1) {
    return Refused(where + ": pattern, format, and minLength or maxLength cannot be enforced together");
  }
  if (has_pattern) {
    if (!schema["pattern"].is_string()) return Invalid(where + ".pattern must be a string");
    const Result<int> rule = PatternRule(schema["pattern"].get<std::string>(), writer, json);
    if (!rule.ok()) return rule.status().WithContext(where + ".pattern");
    return rule;
  }
  if (has_format) {
    for (const Format& format : kFormats) {
      if (schema["format"] == format.name) return PatternRule(format.pattern, writer, json);
    }
    return Refused(where + ".format " + ToText(schema["format"]).substr(0, 100) + " is not supported");
  }
  return json.String(length.min, length.max);
}

Result<int> NumberRule(const JsonIn& schema, const std::string& where, JsonGrammar& json) {
  bool may_be_negative = true;
  for (const std::string_view word : kNumberWords) {
    const auto bound = schema.find(std::string(word));
    if (bound == schema.end()) continue;
    if (word == "minimum" && bound->is_number() && *bound == 0) {
      may_be_negative = false;
      continue;
    }
    return Refused(where + "." + std::string(word) +
                   " of numbers cannot be enforced, except minimum 0 (that of integers can)");
  }
  return json.Number(may_be_negative);
}

Result<int> IntegerRule(const JsonIn& schema, const std::string& where, JsonGrammar& json) {
  std::optional<int64_t> min, max;
  for (const std::string_view word : kNumberWords) {
    const auto bound = schema.find(std::string(word));
    if (bound == schema.end()) continue;
    const std::optional<int64_t> value = AsInt(*bound, -kMaxInteger + 1, kMaxInteger - 1);
    if (!value) return Refused(where + "." + std::string(word) + " must be a whole number of at most 15 digits");
    if (word == "minimum") min = std::max(min.value_or(*value), *value);
    if (word == "exclusiveMinimum") min = std::max(min.value_or(*value + 1), *value + 1);
    if (word == "maximum") max = std::min(max.value_or(*value), *value);
    if (word == "exclusiveMaximum") max = std::min(max.value_or(*value - 1), *value - 1);
  }
  if (min && max && *min > *max) return Invalid(where + ": no integer is within its bounds");
  return json.Integer(min, max);
}

}  // namespace loopserve::server
