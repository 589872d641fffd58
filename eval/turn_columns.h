// The fields of a turn as columns of a table. Thread rule: pure functions.
#pragma once

#include <string>

#include "eval/played_dialogue.h"
#include "eval/sqlite_db.h"
#include "loopserve/status.h"

namespace loopserve::eval {

std::string SqlTypeOf(const TurnField& field);

/// "turn, dataset, ...", or what else `write` makes of the fields.
template <typename Write>
std::string ListFields(Write write) {
  std::string list;
  for (const TurnField& field : TurnFields()) list += (list.empty() ? "" : ", ") + write(field);
  return list;
}

/// "turn, dataset, ...".
std::string NamesOfFields();

void BindField(const PlayedTurn& turn, const TurnField& field, int parameter, SqlStatement* statement);

/// kCorruptData for what BindField would not have written.
Status ReadField(const SqlStatement& statement, int column, const TurnField& field, PlayedTurn* turn);

}  // namespace loopserve::eval
