#include "eval/dialogue_file.h"

#include <fstream>
#include <functional>
#include <iostream>
#include <set>

#include "eval/json_fields.h"
#include "eval/task_json.h"

namespace loopserve::eval {
namespace {

constexpr size_t kMostMessages = 20;

Result<DialogueTurn> TakeTurn(const Json& value, const std::string& where) {
  if (!value.is_object()) return Bad("every one of \"turns\" must be an object");
  LS_RETURN_IF_ERROR(CheckFields(value, where, {"user", "reference", "task"}));
  DialogueTurn turn;
  LS_ASSIGN_OR_RETURN(turn.user, TakeText(value, "user", where));
  if (IsBlank(turn.user)) return Bad("the field \"user\"" + where + " is empty");
  if (const auto reference = value.find("reference"); reference != value.end()) {
    LS_ASSIGN_OR_RETURN(turn.reference, TextsOf(*reference, "reference", where));
  }
  if (const auto task = value.find("task"); task != value.end()) {
    LS_ASSIGN_OR_RETURN(turn.task, TakeTask(*task, where));
  }
  return turn;
}

/// A task may name the text of its own and of earlier turns.
Status CheckTextTurns(const WrittenDialogue& dialogue, const std::string& where) {
  const auto n_turns = static_cast<int>(dialogue.turns.size());
  const std::optional<TurnTask>& task = dialogue.turns.back().task;
  if (!task || task->text_turns.empty() || task->text_turns.back() <= n_turns) return Status::Ok();
  return Bad("the field \"text_turns\"" + where + " names turn " + std::to_string(task->text_turns.back()));
}

Result<WrittenDialogue> ParseDialogue(const std::string& line, const std::string& default_id) {
  LS_ASSIGN_OR_RETURN(const Json value, ParseObject(line));
  LS_RETURN_IF_ERROR(CheckFields(value, "", {"id", "system", "turns"}));
  WrittenDialogue dialogue;
  dialogue.id = default_id;
  if (value.contains("id")) {
    LS_ASSIGN_OR_RETURN(dialogue.id, TakeText(value, "id"));
  }
  if (value.contains("system")) {
    LS_ASSIGN_OR_RETURN(dialogue.system, TakeText(value, "system"));
  }
  const auto turns = value.find("turns");
  if (turns == value.end()) return Bad("the field \"turns\" is missing");
  if (!turns->is_array() || turns->empty()) return Bad("the field \"turns\" must be a list with at least one turn");
  for (const Json& turn : *turns) {
    const std::string where = " of turn " + std::to_string(dialogue.turns.size() + 1);
    LS_ASSIGN_OR_RETURN(DialogueTurn taken, TakeTurn(turn, where));
    dialogue.turns.push_back(std::move(taken));
    LS_RETURN_IF_ERROR(CheckTextTurns(dialogue, where));
  }
  return dialogue;
}

/// on_broken: is given what is wrong with a line; an error that it returns ends the reading.
Result<std::vector<WrittenDialogue>> ReadLines(std::istream& in, const std::string& name,
                                               const std::function<Status(Status)>& on_broken) {
  std::vector<WrittenDialogue> dialogues;
  std::set<std::string> ids;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (IsBlank(line)) continue;
    const std::string where = name + ", line " + std::to_string(number);
    Result<WrittenDialogue> dialogue = ParseDialogue(line, "line-" + std::to_string(number));
    if (dialogue.ok() && !ids.insert(dialogue->id).second) {
      dialogue = Bad("the id \"" + dialogue->id + "\" was given before");
    }
    if (dialogue.ok()) {
      dialogues.push_back(std::move(*dialogue));
    } else {
      LS_RETURN_IF_ERROR(on_broken(dialogue.status().WithContext(where)));
    }
  }
  if (in.bad()) return Status(StatusCode::kIoError, "cannot read " + name);
  return dialogues;
}

}  // namespace

Result<std::vector<WrittenDialogue>> ReadDialogues(std::istream& in, const std::string& name) {
  LS_ASSIGN_OR_RETURN(std::vector<WrittenDialogue> dialogues,
                      ReadLines(in, name, [](Status broken) { return broken; }));
  if (dialogues.empty()) return Bad(name + ": no dialogue in it");
  return dialogues;
}

Result<std::vector<WrittenDialogue>> ReadDialogueFile(const std::string& path) {
  if (path == "-") return ReadDialogues(std::cin, "stdin");
  LS_ASSIGN_OR_RETURN(std::ifstream in, OpenTextFile(path));
  return ReadDialogues(in, path);
}

Result<ReadableDialogues> ReadGoodDialogues(std::istream& in, const std::string& name) {
  ReadableDialogues readable;
  LS_ASSIGN_OR_RETURN(readable.dialogues, ReadLines(in, name, [&](const Status& broken) {
                        ++readable.left_out;
                        if (readable.messages.size() < kMostMessages) readable.messages.push_back(broken.message());
                        return Status::Ok();
                      }));
  if (!readable.dialogues.empty()) return readable;
  return Bad(readable.messages.empty() ? name + ": no dialogue in it"
                                       : "no line is a dialogue; the first: " + readable.messages.front());
}

Result<ReadableDialogues> ReadGoodDialogueFile(const std::string& path) {
  if (path == "-") return ReadGoodDialogues(std::cin, "stdin");
  LS_ASSIGN_OR_RETURN(std::ifstream in, OpenTextFile(path));
  return ReadGoodDialogues(in, path);
}

std::string FormatDialogue(const WrittenDialogue& dialogue) {
  Json turns = Json::array();
  for (const DialogueTurn& turn : dialogue.turns) {
    Json value = {{"user", turn.user}};
    if (!turn.reference.empty()) value["reference"] = turn.reference;
    if (turn.task) value["task"] = TaskToJson(*turn.task);
    turns.push_back(std::move(value));
  }
  Json value = {{"id", dialogue.id}};
  if (!dialogue.system.empty()) value["system"] = dialogue.system;
  value["turns"] = std::move(turns);
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace loopserve::eval
