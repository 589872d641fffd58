// Stored results for the tests of this folder.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "eval/played_dialogue.h"

namespace loopserve::eval {

inline PlayedTurn TestTurn(int64_t number, const std::string& position, std::optional<double> score) {
  PlayedTurn turn;
  turn.turn = number;
  turn.dataset = "hotpotqa";
  turn.position = position;
  turn.dependency = "same";
  turn.metric = "f1";
  turn.cut_tokens = 3;
  turn.answer = "the \"blue\" river\nÜber";
  turn.references = {"blue river", "it's blue"};
  turn.score = score;
  turn.prompt_tokens = 10 * number;
  turn.new_tokens = 7;
  turn.stop_reason = "end_of_text";
  turn.ttft_ms = 12.25;
  turn.prefill_density = 0.5;
  turn.kl = 0.125;
  return turn;
}

inline PlayedDialogue TestPlayed(const std::string& dialogue, const std::string& policy, const std::string& position,
                                 std::vector<double> scores) {
  PlayedDialogue played{.dialogue = dialogue, .policy = policy, .threads = 2};
  for (const double score : scores) {
    played.turns.push_back(TestTurn(static_cast<int64_t>(played.turns.size()) + 1, position, score));
  }
  return played;
}

/// All fields of all turns as text. of_machine: times and memory too.
inline std::string Dump(const std::vector<PlayedDialogue>& all, bool of_machine) {
  std::string text;
  for (const PlayedDialogue& played : all) {
    text += played.dialogue + " | " + played.policy + " | " + std::to_string(played.threads) + " | " + played.error;
    for (const PlayedTurn& turn : played.turns) {
      for (const TurnField& field : TurnFields()) {
        if (field.of_machine && !of_machine) continue;
        text += "\n  " + std::string(field.name) + "=";
        if (const auto* number = std::get_if<std::optional<double> PlayedTurn::*>(&field.member)) {
          text += turn.**number ? std::to_string(*(turn.**number)) : "null";
        } else if (const auto* integer = std::get_if<int64_t PlayedTurn::*>(&field.member)) {
          text += std::to_string(turn.**integer);
        } else if (const auto* word = std::get_if<std::string PlayedTurn::*>(&field.member)) {
          text += turn.**word;
        } else {
          for (const std::string& item : turn.*std::get<std::vector<std::string> PlayedTurn::*>(field.member)) {
            text += "[" + item + "]";
          }
        }
      }
    }
    text += "\n";
  }
  return text;
}

}  // namespace loopserve::eval
