#include "eval/turn_columns.h"

#include <iterator>
#include <type_traits>
#include <variant>
#include <vector>

#include "eval/json_fields.h"

namespace loopserve::eval {

std::string SqlTypeOf(const TurnField& field) {
  constexpr const char* kTypes[] = {"INTEGER NOT NULL", "TEXT NOT NULL", "TEXT NOT NULL", "REAL"};
  static_assert(std::variant_size_v<TurnField::Member> == std::size(kTypes));
  return kTypes[field.member.index()];
}

std::string NamesOfFields() {
  return ListFields([](const TurnField& field) { return std::string(field.name); });
}

void BindField(const PlayedTurn& turn, const TurnField& field, int parameter, SqlStatement* statement) {
  std::visit(
      [&](auto member) {
        if constexpr (std::is_same_v<decltype(member), std::vector<std::string> PlayedTurn::*>) {
          statement->Bind(parameter,
                          std::string_view(Json(turn.*member).dump(-1, ' ', false, Json::error_handler_t::replace)));
        } else if constexpr (std::is_same_v<decltype(member), std::string PlayedTurn::*>) {
          statement->Bind(parameter, std::string_view(turn.*member));
        } else {
          statement->Bind(parameter, turn.*member);
        }
      },
      field.member);
}

Status ReadField(const SqlStatement& statement, int column, const TurnField& field, PlayedTurn* turn) {
  if (const auto* integer = std::get_if<int64_t PlayedTurn::*>(&field.member)) {
    turn->** integer = statement.Integer(column);
  } else if (const auto* text = std::get_if<std::string PlayedTurn::*>(&field.member)) {
    turn->** text = statement.Text(column);
  } else if (const auto* number = std::get_if<std::optional<double> PlayedTurn::*>(&field.member)) {
    turn->** number = statement.Number(column);
  } else {
    const Json list = Json::parse(statement.Text(column), nullptr, /*allow_exceptions=*/false);
    LS_ASSIGN_OR_RETURN(turn->*std::get<std::vector<std::string> PlayedTurn::*>(field.member),
                        TextsOf(list, std::string(field.name), ""));
  }
  return Status::Ok();
}

}  // namespace loopserve::eval
