#include "eval/result_json.h"

#include <utility>

namespace loopserve::eval {

Json FieldToJson(const PlayedTurn& turn, const TurnField& field) {
  if (const auto* number = std::get_if<std::optional<double> PlayedTurn::*>(&field.member)) {
    const std::optional<double>& value = turn.**number;
    return value ? Json(*value) : Json(nullptr);
  }
  if (const auto* integer = std::get_if<int64_t PlayedTurn::*>(&field.member)) return turn.**integer;
  if (const auto* text = std::get_if<std::string PlayedTurn::*>(&field.member)) return turn.**text;
  return turn.*std::get<std::vector<std::string> PlayedTurn::*>(field.member);
}

Json PairsToJson(const RunInputs& pairs) {
  Json object = Json::object();
  for (const auto& [key, value] : pairs) object[key] = value;
  return object;
}

Json ResultsToJson(const StoredResults& results) {
  Json dialogues = Json::array();
  for (const PlayedDialogue& one : results.played) {
    Json turns = Json::array();
    for (const PlayedTurn& turn : one.turns) {
      Json value = Json::object();
      for (const TurnField& field : TurnFields()) value[std::string(field.name)] = FieldToJson(turn, field);
      turns.push_back(std::move(value));
    }
    Json value = {{"id", one.dialogue}, {"policy", one.policy}, {"threads", one.threads}, {"turns", std::move(turns)}};
    if (!one.error.empty()) value["error"] = one.error;
    dialogues.push_back(std::move(value));
  }
  return {{"schema", kResultSchema},
          {"run", PairsToJson(results.run)},
          {"policies", PairsToJson(results.policies)},
          {"dialogues", std::move(dialogues)}};
}

}  // namespace loopserve::eval
