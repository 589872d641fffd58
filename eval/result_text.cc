#include "eval/result_text.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "eval/json_fields.h"
#include "eval/result_json.h"
#include "src/base/utf8.h"

namespace loopserve::eval {
namespace {

constexpr char kKind[] = "loopserve eval";
/// Dialogues that the first line names, at most.
constexpr size_t kMaxNames = 50'000;
/// Bytes, milliseconds: sums of more would not be finite for long.
constexpr double kLargestFigure = 1e18;
/// Files from this schema on are read; they do not have what came later.
constexpr int64_t kOldestSchema = 2;

/// Answers quote the datasets' texts, which not everybody may pass on.
bool IsLeftOut(const TurnField& field) {
  return field.member == TurnField::Member(&PlayedTurn::references) ||
         field.member == TurnField::Member(&PlayedTurn::answer);
}

/// The fields of these names, in a file of `schema`.
Result<std::vector<const TurnField*>> FieldsNamed(const std::vector<std::string>& names, int64_t schema) {
  std::vector<const TurnField*> fields;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(TurnFields(), name, &TurnField::name);
    if (found == TurnFields().end() || std::holds_alternative<std::vector<std::string> PlayedTurn::*>(found->member)) {
      return Bad("\"fields\" has \"" + name + "\", which is no field of a turn");
    }
    if (std::ranges::find(fields, &*found) != fields.end()) return Bad("\"fields\" has \"" + name + "\" twice");
    fields.push_back(&*found);
  }
  for (const TurnField& field : TurnFields()) {
    if (field.since > schema || IsLeftOut(field) || std::ranges::find(fields, &field) != fields.end()) continue;
    return Bad("\"fields\" lacks \"" + std::string(field.name) + "\"");
  }
  return fields;
}

std::string ToLine(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json TurnToRow(const PlayedTurn& turn) {
  Json row = Json::array();
  for (const TurnField& field : TurnFields()) {
    if (IsLeftOut(field)) continue;
    Json value = FieldToJson(turn, field);
    // Digits of a time that no measurement has.
    if (field.of_machine && value.is_number_float()) value = std::round(value.get<double>() * 1000) / 1000;
    row.push_back(std::move(value));
  }
  return row;
}

/// The texts of an object, in its order.
Result<RunInputs> TakePairs(const Json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_object()) return Bad("the field \"" + key + "\" must be an object");
  RunInputs pairs;
  for (const auto& [name, value] : found->items()) {
    if (!value.is_string()) return Bad("the field \"" + key + "\" has a value that is no text");
    pairs.emplace_back(name, value.get<std::string>());
  }
  return pairs;
}

Status SetField(const Json& value, const TurnField& field, PlayedTurn* turn) {
  const std::string name(field.name);
  if (const auto* integer = std::get_if<int64_t PlayedTurn::*>(&field.member)) {
    LS_ASSIGN_OR_RETURN(turn->**integer, TakeCount(Json{{name, value}}, name, "", 0));
  } else if (const auto* text = std::get_if<std::string PlayedTurn::*>(&field.member)) {
    LS_ASSIGN_OR_RETURN(turn->**text, TakeText(Json{{name, value}}, name));
  } else if (const auto* number = std::get_if<std::optional<double> PlayedTurn::*>(&field.member)) {
    if (value.is_null()) return Status::Ok();
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      return Bad("the field \"" + name + "\" must be a number or null");
    }
    if (std::abs(value.get<double>()) > kLargestFigure)
      return Bad("the field \"" + name + "\" is no figure that can be");
    turn->** number = value.get<double>();
    if (field.member == TurnField::Member(&PlayedTurn::score) && !(*turn->score >= 0 && *turn->score <= 1)) {
      return Bad("the field \"" + name + "\" must be from 0 to 1");
    }
  }
  return Status::Ok();
}

class Parser {
 public:
  explicit Parser(const std::string& name) : name_(name) {}

  Result<StoredResults> Parse(std::istream& in) {
    std::string line;
    for (int64_t number = 1; std::getline(in, line); ++number) {
      if (IsBlank(line)) continue;
      const Status status = fields_.empty() ? TakeHead(line) : TakePlay(line);
      if (!status.ok()) return status.WithContext(name_ + ", line " + std::to_string(number));
    }
    if (in.bad()) return Status(StatusCode::kIoError, "cannot read " + name_);
    if (fields_.empty()) return Bad(name_ + " has no results");
    return std::move(results_);
  }

 private:
  Status TakeHead(const std::string& line) {
    LS_ASSIGN_OR_RETURN(const Json head, ParseObject(line, kMaxNames));
    LS_RETURN_IF_ERROR(CheckFields(head, "", {"kind", "schema", "run", "policies", "dialogues", "fields"}));
    LS_ASSIGN_OR_RETURN(const std::string kind, TakeText(head, "kind"));
    if (kind != kKind) return Bad("this is no file of results: its kind is \"" + kind + "\"");
    LS_ASSIGN_OR_RETURN(const int64_t schema, TakeCount(head, "schema", "", 1));
    if (schema < kOldestSchema || schema > kResultSchema) {
      return Status(StatusCode::kUnsupported, "it has schema " + std::to_string(schema) + "; this program knows " +
                                                  std::to_string(kOldestSchema) + " to " +
                                                  std::to_string(kResultSchema));
    }
    LS_ASSIGN_OR_RETURN(results_.run, TakePairs(head, "run"));
    LS_ASSIGN_OR_RETURN(results_.policies, TakePairs(head, "policies"));
    LS_ASSIGN_OR_RETURN(results_.dialogues, TakePairs(head, "dialogues"));
    for (const auto& [policy, settings] : results_.policies) policies_.insert(policy);
    for (const auto& [dialogue, hash] : results_.dialogues) dialogues_.insert(dialogue);
    if (!head.contains("fields")) return Bad("the field \"fields\" is missing");
    LS_ASSIGN_OR_RETURN(const std::vector<std::string> names, TextsOf(head["fields"], "fields"));
    LS_ASSIGN_OR_RETURN(fields_, FieldsNamed(names, schema));
    return Status::Ok();
  }

  Status TakePlay(const std::string& line) {
    LS_ASSIGN_OR_RETURN(const Json object, ParseObject(line));
    LS_RETURN_IF_ERROR(CheckFields(object, "", {"id", "policy", "threads", "turns"}));
    PlayedDialogue played;
    LS_ASSIGN_OR_RETURN(played.dialogue, TakeText(object, "id"));
    LS_ASSIGN_OR_RETURN(played.policy, TakeText(object, "policy"));
    LS_ASSIGN_OR_RETURN(played.threads, TakeCount(object, "threads", "", 1));
    if (dialogues_.count(played.dialogue) == 0) return Bad("the first line does not name this dialogue");
    if (policies_.count(played.policy) == 0) return Bad("the first line does not name this policy");
    if (!seen_.emplace(played.dialogue, played.policy).second) return Bad("this dialogue and policy come twice");
    const auto turns = object.find("turns");
    if (turns == object.end() || !turns->is_array() || turns->empty()) return Bad("it needs a list of turns");
    for (const Json& row : *turns) {
      const std::string where = " of turn " + std::to_string(played.turns.size() + 1);
      if (!row.is_array() || row.size() != fields_.size()) {
        return Bad("the values" + where + " must be a list of " + std::to_string(fields_.size()));
      }
      PlayedTurn& turn = played.turns.emplace_back();
      for (size_t i = 0; i < fields_.size(); ++i) LS_RETURN_IF_ERROR(SetField(row[i], *fields_[i], &turn));
      if (turn.turn != std::ssize(played.turns)) return Bad("the turns must be numbered from 1 on");
    }
    results_.played.push_back(std::move(played));
    return Status::Ok();
  }

  const std::string& name_;
  StoredResults results_;
  std::vector<const TurnField*> fields_;  // of a row; empty until the first line was read
  std::set<std::string> policies_, dialogues_;
  std::set<std::pair<std::string, std::string>> seen_;
};

}  // namespace

std::string ResultsToText(const StoredResults& results) {
  Json names = Json::array();
  for (const TurnField& field : TurnFields()) {
    if (!IsLeftOut(field)) names.push_back(field.name);
  }
  std::string text = ToLine({{"kind", kKind},
                             {"schema", kResultSchema},
                             {"run", PairsToJson(results.run)},
                             {"policies", PairsToJson(results.policies)},
                             {"dialogues", PairsToJson(results.dialogues)},
                             {"fields", std::move(names)}});
  for (const PlayedDialogue& played : results.played) {
    if (!played.error.empty()) continue;
    Json rows = Json::array();
    for (const PlayedTurn& turn : played.turns) rows.push_back(TurnToRow(turn));
    text += ToLine(
        {{"id", played.dialogue}, {"policy", played.policy}, {"threads", played.threads}, {"turns", std::move(rows)}});
  }
  return text;
}

Result<StoredResults> ParseResultsText(std::istream& in, const std::string& name) { return Parser(name).Parse(in); }

}  // namespace loopserve::eval
