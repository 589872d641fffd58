#include "src/server/json_reader.h"

#include <cmath>

#include "src/base/json_nesting.h"
#include "src/base/utf8.h"

namespace loopserve::server {
namespace {

/// nlohmann's message without its "[json.exception.parse_error.101] ".
std::string OwnWords(const std::string& message) {
  const size_t end = message.find("] ");
  return end == std::string::npos ? message : message.substr(end + 2);
}

}  // namespace

Result<JsonIn> ParseBody(std::string_view body, const std::string& what) {
  if (const size_t bad = FindInvalidUtf8(body); bad != std::string_view::npos) {
    return Status(StatusCode::kInvalidArgument, what + " is not valid UTF-8 at byte " + std::to_string(bad));
  }
  const JsonShape shape = ShapeOfJson(body);
  if (shape.depth > kMaxJsonDepth) {
    return Status(StatusCode::kInvalidArgument, what + " is JSON nested " + std::to_string(shape.depth) +
                                                    " deep; at most " + std::to_string(kMaxJsonDepth) + " are allowed");
  }
  if (shape.max_members > kMaxJsonMembers) {
    return Status(StatusCode::kInvalidArgument, what + " has a JSON object of " + std::to_string(shape.max_members) +
                                                    " members; at most " + std::to_string(kMaxJsonMembers) +
                                                    " are allowed");
  }
  try {
    JsonIn json = JsonIn::parse(body);
    if (!json.is_object()) return Status(StatusCode::kInvalidArgument, what + " must be a JSON object");
    return json;
  } catch (const JsonIn::exception& error) {
    return Status(StatusCode::kInvalidArgument, what + " is not valid JSON: " + OwnWords(error.what()));
  }
}

std::string ToText(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::optional<int64_t> AsInt(const JsonIn& value, int64_t min, int64_t max) {
  int64_t number = 0;
  if (value.is_number_unsigned()) {
    const auto wide = value.get<uint64_t>();
    if (wide > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    number = static_cast<int64_t>(wide);
  } else if (value.is_number_integer()) {
    number = value.get<int64_t>();
  } else if (value.is_number_float()) {
    const double real = value.get<double>();
    if (!(std::abs(real) < 9e15) || real != std::floor(real)) return std::nullopt;
    number = static_cast<int64_t>(real);
  } else {
    return std::nullopt;
  }
  return number >= min && number <= max ? std::optional(number) : std::nullopt;
}

Status Fields::Wrong(const std::string& key, const std::string& wanted) const {
  return Status(StatusCode::kInvalidArgument, NameOf(key) + " must be " + wanted);
}

const JsonIn* Fields::Find(const std::string& key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

Result<std::optional<std::string>> Fields::Text(const std::string& key, size_t max_bytes) const {
  const JsonIn* value = Find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) return Wrong(key, "a string");
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > max_bytes) return Wrong(key, "a string of at most " + std::to_string(max_bytes) + " bytes");
  return std::optional(text);
}

Result<std::optional<bool>> Fields::Bool(const std::string& key) const {
  const JsonIn* value = Find(key);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_boolean()) return Wrong(key, "true or false");
  return std::optional(value->get<bool>());
}

Result<std::optional<int64_t>> Fields::Int(const std::string& key, int64_t min, int64_t max) const {
  const JsonIn* value = Find(key);
  if (value == nullptr) return std::optional<int64_t>();
  const std::optional<int64_t> number = AsInt(*value, min, max);
  if (!number) return Wrong(key, "a whole number from " + std::to_string(min) + " to " + std::to_string(max));
  return number;
}

Result<std::optional<double>> Fields::Number(const std::string& key) const {
  const JsonIn* value = Find(key);
  if (value == nullptr) return std::optional<double>();
  if (!value->is_number() || !std::isfinite(value->get<double>())) return Wrong(key, "a number");
  return std::optional(value->get<double>());
}

Result<const JsonIn*> Fields::Object(const std::string& key) const {
  const JsonIn* value = Find(key);
  if (value != nullptr && !value->is_object()) return Wrong(key, "an object");
  return value;
}

Result<const JsonIn*> Fields::List(const std::string& key, size_t max_items) const {
  const JsonIn* value = Find(key);
  if (value != nullptr && (!value->is_array() || value->size() > max_items)) {
    return Wrong(key, "a list of at most " + std::to_string(max_items) + " items");
  }
  return value;
}

}  // namespace loopserve::server
