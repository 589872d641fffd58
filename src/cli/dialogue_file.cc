#include "src/cli/dialogue_file.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>

#include "src/base/errno_status.h"
#include "src/base/utf8.h"
#include "src/cli/json_output.h"

namespace loopserve {
namespace {

Status Bad(const std::string& why) { return Status(StatusCode::kCorruptData, why); }

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

Result<std::vector<std::string>> TakeReferences(const Json& turn, const std::string& where) {
  std::vector<std::string> references;
  const auto found = turn.find("reference");
  if (found == turn.end()) return references;
  const Status wrong = Bad("the field \"reference\"" + where + " must be a list of texts");
  if (!found->is_array()) return wrong;
  for (const Json& item : *found) {
    if (!item.is_string()) return wrong;
    references.push_back(item.get<std::string>());
  }
  return references;
}

Result<DialogueTurn> TakeTurn(const Json& value, const std::string& where) {
  if (!value.is_object()) return Bad("every one of \"turns\" must be an object");
  LS_RETURN_IF_ERROR(CheckFields(value, where, {"user", "reference"}));
  DialogueTurn turn;
  LS_ASSIGN_OR_RETURN(turn.user, TakeText(value, "user", where));
  if (turn.user.find_first_not_of(" \t\r\n") == std::string::npos)
    return Bad("the field \"user\"" + where + " is empty");
  LS_ASSIGN_OR_RETURN(turn.reference, TakeReferences(value, where));
  return turn;
}

Result<WrittenDialogue> ParseDialogue(const std::string& line, const std::string& default_id) {
  if (const size_t position = FindInvalidUtf8(line); position != std::string::npos) {
    return Bad("not valid UTF-8 at byte " + std::to_string(position + 1));
  }
  const Json value = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return Bad("not valid JSON");
  if (!value.is_object()) return Bad("it must be an object");
  LS_RETURN_IF_ERROR(CheckFields(value, "", {"id", "system", "turns"}));
  WrittenDialogue dialogue;
  dialogue.id = default_id;
  if (value.contains("id")) {
    LS_ASSIGN_OR_RETURN(dialogue.id, TakeText(value, "id", ""));
  }
  if (value.contains("system")) {
    LS_ASSIGN_OR_RETURN(dialogue.system, TakeText(value, "system", ""));
  }
  const auto turns = value.find("turns");
  if (turns == value.end()) return Bad("the field \"turns\" is missing");
  if (!turns->is_array() || turns->empty()) return Bad("the field \"turns\" must be a list with at least one turn");
  for (const Json& turn : *turns) {
    const std::string where = " of turn " + std::to_string(dialogue.turns.size() + 1);
    LS_ASSIGN_OR_RETURN(DialogueTurn taken, TakeTurn(turn, where));
    dialogue.turns.push_back(std::move(taken));
  }
  return dialogue;
}

}  // namespace

Result<std::vector<WrittenDialogue>> ReadDialogues(std::istream& in, const std::string& name) {
  std::vector<WrittenDialogue> dialogues;
  std::set<std::string> ids;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = name + ", line " + std::to_string(number);
    Result<WrittenDialogue> dialogue = ParseDialogue(line, "line-" + std::to_string(number));
    if (!dialogue.ok()) return dialogue.status().WithContext(where);
    if (!ids.insert(dialogue->id).second) return Bad(where + ": the id \"" + dialogue->id + "\" was given before");
    dialogues.push_back(std::move(*dialogue));
  }
  if (in.bad()) return Status(StatusCode::kIoError, "cannot read " + name);
  if (dialogues.empty()) return Bad(name + ": no dialogue in it");
  return dialogues;
}

Result<std::vector<WrittenDialogue>> ReadDialogueFile(const std::string& path) {
  if (path == "-") return ReadDialogues(std::cin, "stdin");
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return Status(StatusCode::kIoError, path + " is a folder");
  std::ifstream in(path, std::ios::binary);
  if (!in) return ErrnoStatus("cannot open " + path, errno);
  return ReadDialogues(in, path);
}

std::string FormatDialogue(const WrittenDialogue& dialogue) {
  Json turns = Json::array();
  for (const DialogueTurn& turn : dialogue.turns) {
    Json value = {{"user", turn.user}};
    if (!turn.reference.empty()) value["reference"] = turn.reference;
    turns.push_back(std::move(value));
  }
  Json value = {{"id", dialogue.id}};
  if (!dialogue.system.empty()) value["system"] = dialogue.system;
  value["turns"] = std::move(turns);
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace loopserve
