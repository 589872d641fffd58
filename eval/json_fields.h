// Fields taken out of a line of JSON that a person wrote: every error names the field. Used by the readers of this
// folder. Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/status.h"

namespace loopserve::eval {

/// Keys stay in the order in which they were added.
using Json = nlohmann::ordered_json;

/// kCorruptData.
Status Bad(const std::string& why);

/// Whether there is nothing but spaces, tabs and line ends.
bool IsBlank(std::string_view text);

/// Opens a file for reading. kNotFound, kIoError (a folder, no permission).
Result<std::ifstream> OpenTextFile(const std::string& path);

/// Members of an object, at most: looking for one takes time in proportion.
inline constexpr size_t kMaxMembers = 1000;

/// One line: an object in valid UTF-8, not nested so deep that copying it would run out of stack.
Result<Json> ParseObject(const std::string& line, size_t max_members = kMaxMembers);

/// Fields that are not `allowed` are errors: a misspelt one would be lost silently.
Status CheckFields(const Json& object, const std::string& where, const std::set<std::string>& allowed);

/// A text that must be there. where: put behind the field's name in the error, as in " of turn 2".
Result<std::string> TakeText(const Json& object, const std::string& key, const std::string& where = "");

/// A whole number of at least `min` that must be there.
Result<int64_t> TakeCount(const Json& object, const std::string& key, const std::string& where, int64_t min);

/// The texts of a list; name: of the field, for the error.
Result<std::vector<std::string>> TextsOf(const Json& list, const std::string& name, const std::string& where = "");

}  // namespace loopserve::eval
