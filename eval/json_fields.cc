#include "eval/json_fields.h"

#include <cerrno>
#include <filesystem>

#include "src/base/errno_status.h"
#include "src/base/json_nesting.h"
#include "src/base/utf8.h"

namespace loopserve::eval {

Status Bad(const std::string& why) { return Status(StatusCode::kCorruptData, why); }

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

Result<std::ifstream> OpenTextFile(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return Status(StatusCode::kIoError, path + " is a folder");
  std::ifstream in(path, std::ios::binary);
  if (!in) return ErrnoStatus("cannot open " + path, errno);
  return in;
}

Result<Json> ParseObject(const std::string& line, size_t max_members) {
  constexpr int kMaxDepth = 100;
  if (const size_t position = FindInvalidUtf8(line); position != std::string::npos) {
    return Bad("not valid UTF-8 at byte " + std::to_string(position + 1));
  }
  const JsonShape shape = ShapeOfJson(line);
  if (shape.depth > kMaxDepth) return Bad("nested deeper than " + std::to_string(kMaxDepth) + " levels");
  if (shape.max_members > max_members) {
    return Bad("an object with more than " + std::to_string(max_members) + " members");
  }
  Json value = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return Bad("not valid JSON");
  if (!value.is_object()) return Bad("it must be an object");
  return value;
}

Status CheckFields(const Json& object, const std::string& where, const std::set<std::string>& allowed) {
  for (const auto& [key, value] : object.items()) {
    if (allowed.count(key) == 0) return Bad("unknown field \"" + key + "\"" + where);
  }
  return Status::Ok();
}

Result<std::string> TakeText(const Json& object, const std::string& key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) return Bad("the field \"" + key + "\"" + where + " is missing");
  if (!found->is_string()) return Bad("the field \"" + key + "\"" + where + " must be a text");
  return found->get<std::string>();
}

Result<int64_t> TakeCount(const Json& object, const std::string& key, const std::string& where, int64_t min) {
  const auto found = object.find(key);
  if (found == object.end()) return Bad("the field \"" + key + "\"" + where + " is missing");
  // Unsigned values above the range of int64_t would wrap.
  const bool fits =
      found->is_number_integer() && (!found->is_number_unsigned() || found->get<uint64_t>() <= uint64_t{INT64_MAX});
  if (!fits || found->get<int64_t>() < min) {
    return Bad("the field \"" + key + "\"" + where + " must be a whole number of at least " + std::to_string(min));
  }
  return found->get<int64_t>();
}

Result<std::vector<std::string>> TextsOf(const Json& list, const std::string& name, const std::string& where) {
  const Status wrong = Bad("the field \"" + name + "\"" + where + " must be a list of texts");
  if (!list.is_array()) return wrong;
  std::vector<std::string> texts;
  for (const Json& item : list) {
    if (!item.is_string()) return wrong;
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

}  // namespace loopserve::eval
