// Written dialogues, which `loopserve run`, `score` and the benchmark play: a file with one JSON object a line,
//   {"id": "...", "turns": [{"user": "...", "reference": ["..."], "task": {...}}], "system": "..."}
// id, reference, system and task may be left out; docs/dialogue_format.md has every field.
// Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <istream>
#include <optional>
#include <string>
#include <vector>

#include "eval/task.h"
#include "loopserve/status.h"

namespace loopserve::eval {

struct DialogueTurn {
  std::string user;                    ///< not empty
  std::vector<std::string> reference;  ///< answers that count as right; may be empty
  std::optional<TurnTask> task;        ///< what a benchmark knows of the turn
};

/// Not to be confused with a dialogue on its way, which is a Session.
struct WrittenDialogue {
  std::string id;  ///< "line-N" where the file gives none
  std::string system;
  std::vector<DialogueTurn> turns;  ///< not empty
};

/// name: for messages. Blank lines are skipped; unknown fields are errors, as a misspelt one would be lost silently.
/// kCorruptData names the line and the field: bad UTF-8, no JSON, a missing, empty or mistyped field, an id that comes
/// twice, or no dialogue at all.
Result<std::vector<WrittenDialogue>> ReadDialogues(std::istream& in, const std::string& name);

/// path: a file, or "-" for stdin. kNotFound, kIoError, and as above.
Result<std::vector<WrittenDialogue>> ReadDialogueFile(const std::string& path);

struct ReadableDialogues {
  std::vector<WrittenDialogue> dialogues;  ///< not empty
  int64_t left_out = 0;                    ///< lines that are no dialogue
  std::vector<std::string> messages;       ///< why, for the first 20 of them: "NAME, line N: ..."
};

/// As ReadDialogues, but a broken line is left out and the rest is read. kCorruptData where no line is a dialogue.
Result<ReadableDialogues> ReadGoodDialogues(std::istream& in, const std::string& name);
Result<ReadableDialogues> ReadGoodDialogueFile(const std::string& path);

/// One line of such a file, without its newline. Invalid UTF-8 becomes U+FFFD.
std::string FormatDialogue(const WrittenDialogue& dialogue);

}  // namespace loopserve::eval
