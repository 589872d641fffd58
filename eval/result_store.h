// DIR/results.sqlite: every dialogue that was played, as soon as it was. A crash at any moment loses the dialogue in
// progress and nothing else. docs/eval_results.md has the tables; a file of another schema is refused.
// Thread rule: one thread at a time. One process at a time writes into a folder; others may read meanwhile.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "eval/played_dialogue.h"
#include "eval/sqlite_db.h"
#include "loopserve/status.h"
#include "src/base/unique_fd.h"

namespace loopserve::eval {

inline constexpr int kResultSchema = 3;

/// What results can only be compared under: another value of any of them is another run. Named as in the report.
using RunInputs = std::vector<std::pair<std::string, std::string>>;

/// All that a folder holds.
struct StoredResults {
  RunInputs run;        ///< with what was noted
  RunInputs policies;   ///< and their settings
  RunInputs dialogues;  ///< and the hashes of their lines
  std::vector<PlayedDialogue> played;
};

/// What is noted of a run beside its inputs.
inline constexpr char kModelNote[] = "model";
inline constexpr char kProgramNote[] = "program";
inline bool IsNote(const std::string& key) { return key == kModelNote || key == kProgramNote; }

class ResultStore {
 public:
  /// Makes the folder and the file where they are missing; else the file must hold a run with the same inputs.
  /// Errors: kInvalidArgument (other inputs: the message says which), kUnsupported (another schema), kIoError (cannot
  /// write, or another process is at it), kResourceExhausted, kCorruptData.
  static Result<ResultStore> OpenRun(const std::string& dir, const RunInputs& inputs);
  /// To read what is there. kNotFound, kUnsupported, kIoError, kCorruptData.
  static Result<ResultStore> OpenResults(const std::string& dir);

  /// (dialogue, policy) of all that were played to their end.
  Result<std::set<std::pair<std::string, std::string>>> Finished();
  /// Stores a dialogue with all its turns, or nothing of it. An earlier failure of the same one is replaced.
  Status Add(const PlayedDialogue& played);
  /// All, in the order in which they were played.
  Result<std::vector<PlayedDialogue>> All();
  Result<StoredResults> Load();
  /// Adds what other results of the same run have finished and this one has not: their definitions and dialogues. All
  /// or nothing; returns how many plays joined. kInvalidArgument where they are of another run.
  Result<int64_t> Merge(const StoredResults& others);
  /// What a name stands for stays the same from start to start: a policy's settings, a dialogue's hash. New names may
  /// join. kInvalidArgument names the one that has changed; then nothing is added.
  Status Define(const RunInputs& policies, const RunInputs& dialogues);
  Result<RunInputs> Definitions(const std::string& kind);
  /// With what was noted.
  Result<RunInputs> Inputs();
  /// Something to know about the run that may change from start to start, beside its inputs.
  Status Note(const std::string& key, const std::string& value);

 private:
  ResultStore(SqlDatabase database, std::string dir) : database_(std::move(database)), dir_(std::move(dir)) {}
  Status CheckFile();
  Status CreateTables(const RunInputs& inputs);
  Status CheckInputs(const RunInputs& inputs);
  Status AddDefinitions(const std::string& kind, const RunInputs& values);
  /// `write` within a transaction: all of it or nothing.
  template <typename Write>
  Status InTransaction(Write write);
  Status AddInTransaction(const PlayedDialogue& played);
  Status MergeInTransaction(const StoredResults& others, int64_t* added);
  Result<std::vector<PlayedTurn>> TurnsOf(int64_t play);

  UniqueFd lock_;  // of the folder; invalid for readers
  SqlDatabase database_;
  std::string dir_;
};

}  // namespace loopserve::eval
