// Bodies of requests: JSON from strangers. Depth and UTF-8 are checked before anything recurses or stores; each field
// that is taken says its name, its type and its range when it is wrong. Thread rule: pure functions, values.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/status.h"

namespace loopserve::server {

/// Keys stay in the order in which they came or were added: an answer has the properties of a schema in its order.
using Json = nlohmann::ordered_json;
using JsonIn = Json;  ///< what is read

inline constexpr int kMaxJsonDepth = 100;
inline constexpr size_t kMaxJsonMembers = 1000;  ///< of one object: keys are found by looking at all of them

/// A JSON object in valid UTF-8, nested at most kMaxJsonDepth deep. kInvalidArgument. what: what it is, for errors.
Result<JsonIn> ParseBody(std::string_view body, const std::string& what = "the body");

/// Compact; bytes that are not UTF-8 become U+FFFD.
std::string ToText(const Json& json);

/// Takes fields out of an object. Fields that are absent or null give an empty optional; a wrong type or range gives
/// kInvalidArgument with the field's name.
class Fields {
 public:
  /// where: put before names in errors, as "messages[2].". `object` must outlive this and be an object.
  explicit Fields(const JsonIn& object, std::string where = "") : object_(object), where_(std::move(where)) {}

  /// Null where it is absent or null.
  const JsonIn* Find(const std::string& key) const;
  std::string NameOf(const std::string& key) const { return where_ + key; }

  Result<std::optional<std::string>> Text(const std::string& key, size_t max_bytes = SIZE_MAX) const;
  Result<std::optional<bool>> Bool(const std::string& key) const;
  Result<std::optional<int64_t>> Int(const std::string& key, int64_t min, int64_t max) const;
  /// Finite.
  Result<std::optional<double>> Number(const std::string& key) const;
  Result<const JsonIn*> Object(const std::string& key) const;  ///< null where it is absent or null
  Result<const JsonIn*> List(const std::string& key, size_t max_items) const;

 private:
  Status Wrong(const std::string& key, const std::string& wanted) const;

  const JsonIn& object_;
  std::string where_;
};

/// An integer in [min, max]: also 3.0, as some clients write it. Empty for anything else.
std::optional<int64_t> AsInt(const JsonIn& value, int64_t min, int64_t max);

}  // namespace loopserve::server
