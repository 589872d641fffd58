// Where a command's JSON goes. Thread rule: main thread.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "loopserve/status.h"

namespace loopserve {

/// Keys stay in the order in which they were added: reports are read by people too.
using Json = nlohmann::ordered_json;

/// The value, or null.
template <typename T>
Json JsonOrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

/// One document, indented by two, with a newline at its end. Invalid UTF-8 becomes U+FFFD, numbers that JSON does not
/// have become null.
std::string ToJsonText(const Json& document);

/// Writes to a file, whole or not at all, or to stdout for "-". kIoError and kResourceExhausted (a full disk).
Status WriteJson(const std::string& path, const Json& document);

/// Checks before a long computation that `path` can be written later; leaves no trace. "-" is always fine.
Status CheckJsonPath(const std::string& path);

}  // namespace loopserve
