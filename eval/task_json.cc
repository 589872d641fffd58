#include "eval/task_json.h"

#include <limits>

namespace loopserve::eval {
namespace {

/// The value that a field names; it must be there.
template <typename T>
Result<T> TakeName(const Json& object, const std::string& key, const std::string& where) {
  LS_ASSIGN_OR_RETURN(const std::string name, TakeText(object, key, where));
  if (const std::optional<T> value = FromName<T>(name)) return *value;
  std::string known;
  for (const T value : AllOf<T>()) known += (known.empty() ? "" : ", ") + std::string(NameOf(value));
  return Bad("the field \"" + key + "\"" + where + " must be one of " + known);
}

Result<std::vector<int>> TakeTextTurns(const Json& list, const std::string& where) {
  const Status wrong = Bad("the field \"text_turns\"" + where + " must be a list of ascending turn numbers");
  if (!list.is_array()) return wrong;
  std::vector<int> turns;
  for (const Json& number : list) {
    if (!number.is_number_integer()) return wrong;
    const auto turn = number.get<int64_t>();
    if (turn < 1 || turn > std::numeric_limits<int>::max() || (!turns.empty() && turn <= turns.back())) return wrong;
    turns.push_back(static_cast<int>(turn));
  }
  return turns;
}

Result<std::vector<std::string>> TakeOptionalTexts(const Json& object, const std::string& key,
                                                   const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) return std::vector<std::string>();
  return TextsOf(*found, key, where);
}

}  // namespace

Result<TurnTask> TakeTask(const Json& value, const std::string& where_turn) {
  const std::string where = " in \"task\"" + where_turn;
  if (!value.is_object()) return Bad("the field \"task\"" + where_turn + " must be an object");
  LS_RETURN_IF_ERROR(CheckFields(value, where,
                                 {"dataset", "metric", "position", "dependency", "text_turns", "max_answer_tokens",
                                  "first_line_only", "all_classes", "source_ids", "cut_tokens"}));
  TurnTask task;
  LS_ASSIGN_OR_RETURN(task.dataset, TakeText(value, "dataset", where));
  LS_ASSIGN_OR_RETURN(task.metric, TakeName<Metric>(value, "metric", where));
  LS_ASSIGN_OR_RETURN(task.position, TakeName<Position>(value, "position", where));
  LS_ASSIGN_OR_RETURN(task.dependency, TakeName<Dependency>(value, "dependency", where));
  LS_ASSIGN_OR_RETURN(task.max_answer_tokens, TakeCount(value, "max_answer_tokens", where, 1));
  if (const auto turns = value.find("text_turns"); turns != value.end()) {
    LS_ASSIGN_OR_RETURN(task.text_turns, TakeTextTurns(*turns, where));
  }
  if (const auto first = value.find("first_line_only"); first != value.end()) {
    if (!first->is_boolean()) return Bad("the field \"first_line_only\"" + where + " must be true or false");
    task.first_line_only = first->get<bool>();
  }
  LS_ASSIGN_OR_RETURN(task.all_classes, TakeOptionalTexts(value, "all_classes", where));
  LS_ASSIGN_OR_RETURN(task.source_ids, TakeOptionalTexts(value, "source_ids", where));
  if (value.contains("cut_tokens")) {
    LS_ASSIGN_OR_RETURN(task.cut_tokens, TakeCount(value, "cut_tokens", where, 0));
  }
  return task;
}

Json TaskToJson(const TurnTask& task) {
  Json value = {{"dataset", task.dataset},           {"metric", NameOf(task.metric)},
                {"position", NameOf(task.position)}, {"dependency", NameOf(task.dependency)},
                {"text_turns", task.text_turns},     {"max_answer_tokens", task.max_answer_tokens}};
  if (task.first_line_only) value["first_line_only"] = true;
  if (!task.all_classes.empty()) value["all_classes"] = task.all_classes;
  value["source_ids"] = task.source_ids;
  value["cut_tokens"] = task.cut_tokens;
  return value;
}

}  // namespace loopserve::eval
