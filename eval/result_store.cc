#include "eval/result_store.h"

#include <fcntl.h>
#include <sys/file.h>

#include <filesystem>
#include <map>

#include "eval/turn_columns.h"
#include "src/base/errno_status.h"
#include "src/base/paths.h"

namespace loopserve::eval {
namespace {

constexpr char kFileName[] = "results.sqlite";
// "LpSv": tells our files from other programs' databases.
constexpr int64_t kApplicationId = 0x4C705376;

std::string PathIn(const std::string& dir) { return (std::filesystem::path(dir) / kFileName).string(); }

Result<UniqueFd> LockFolder(const std::string& dir) {
  UniqueFd fd(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus("cannot open " + dir, errno);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return Status(StatusCode::kIoError, dir + " is in use by another loopserve eval run");
  }
  // Other errors: a file system without locks.
  return fd;
}

/// All rows of two texts.
Result<RunInputs> Pairs(SqlStatement& select) {
  RunInputs pairs;
  while (true) {
    LS_ASSIGN_OR_RETURN(const bool has_row, select.Step());
    if (!has_row) return pairs;
    pairs.emplace_back(select.Text(0), select.Text(1));
  }
}

}  // namespace

Result<ResultStore> ResultStore::OpenRun(const std::string& dir, const RunInputs& inputs) {
  LS_RETURN_IF_ERROR(CreateDirs(dir));
  LS_ASSIGN_OR_RETURN(UniqueFd lock, LockFolder(dir));
  LS_ASSIGN_OR_RETURN(SqlDatabase database, SqlDatabase::Open(PathIn(dir), SqlDatabase::Mode::kCreate));
  ResultStore store(std::move(database), dir);
  store.lock_ = std::move(lock);
  LS_RETURN_IF_ERROR(store.database_.Execute("PRAGMA foreign_keys = ON"));
  LS_ASSIGN_OR_RETURN(const int64_t tables, store.database_.QueryInteger("SELECT count(*) FROM sqlite_master"));
  if (tables == 0) {
    LS_RETURN_IF_ERROR(store.CreateTables(inputs));
  } else {
    LS_RETURN_IF_ERROR(store.CheckFile());
    LS_RETURN_IF_ERROR(store.CheckInputs(inputs));
    // Whether anything can be written is known now, and not after the first dialogue.
    LS_RETURN_IF_ERROR(store.database_.Execute("BEGIN IMMEDIATE; COMMIT"));
  }
  return store;
}

Result<ResultStore> ResultStore::OpenResults(const std::string& dir) {
  LS_ASSIGN_OR_RETURN(SqlDatabase database, SqlDatabase::Open(PathIn(dir), SqlDatabase::Mode::kRead));
  ResultStore store(std::move(database), dir);
  LS_RETURN_IF_ERROR(store.CheckFile());
  return store;
}

Status ResultStore::CheckFile() {
  LS_ASSIGN_OR_RETURN(const int64_t application, database_.QueryInteger("PRAGMA application_id"));
  if (application != kApplicationId) {
    return Status(StatusCode::kUnsupported, std::string(kFileName) + " there was not written by loopserve eval");
  }
  LS_ASSIGN_OR_RETURN(const int64_t schema, database_.QueryInteger("PRAGMA user_version"));
  if (schema != kResultSchema) {
    return Status(StatusCode::kUnsupported, std::string(kFileName) + " there has schema " + std::to_string(schema) +
                                                "; this program knows " + std::to_string(kResultSchema));
  }
  LS_ASSIGN_OR_RETURN(SqlStatement check, database_.Prepare("PRAGMA quick_check(1)"));
  LS_ASSIGN_OR_RETURN(const bool has_row, check.Step());
  const std::string found = has_row ? check.Text(0) : "";
  if (found == "ok") return Status::Ok();
  return Status(StatusCode::kCorruptData, std::string(kFileName) + " there is damaged: " + found);
}

Status ResultStore::CreateTables(const RunInputs& inputs) {
  const std::string columns =
      ListFields([](const TurnField& field) { return std::string(field.name) + " " + SqlTypeOf(field); });
  LS_RETURN_IF_ERROR(
      database_.Execute("BEGIN IMMEDIATE;"
                        "CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
                        "CREATE TABLE definitions (kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,"
                        " PRIMARY KEY (kind, name));"
                        "CREATE TABLE plays (id INTEGER PRIMARY KEY, dialogue TEXT NOT NULL, policy TEXT NOT NULL,"
                        " threads INTEGER NOT NULL, error TEXT NOT NULL, UNIQUE (dialogue, policy));"
                        "CREATE TABLE turns (play INTEGER NOT NULL REFERENCES plays (id) ON DELETE CASCADE, " +
                        columns + ", PRIMARY KEY (play, turn));"));
  LS_ASSIGN_OR_RETURN(SqlStatement insert, database_.Prepare("INSERT INTO run VALUES (?, ?)"));
  for (const auto& [key, value] : inputs) {
    insert.Bind(0, std::string_view(key));
    insert.Bind(1, std::string_view(value));
    LS_RETURN_IF_ERROR(insert.Run());
  }
  return database_.Execute("PRAGMA application_id = " + std::to_string(kApplicationId) +
                           "; PRAGMA user_version = " + std::to_string(kResultSchema) + "; COMMIT");
}

Result<RunInputs> ResultStore::Inputs() {
  LS_ASSIGN_OR_RETURN(SqlStatement select, database_.Prepare("SELECT key, value FROM run ORDER BY rowid"));
  return Pairs(select);
}

Status ResultStore::Note(const std::string& key, const std::string& value) {
  LS_ASSIGN_OR_RETURN(SqlStatement insert,
                      database_.Prepare("INSERT INTO run VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2"));
  insert.Bind(0, std::string_view(key));
  insert.Bind(1, std::string_view(value));
  return insert.Run();
}

Status ResultStore::CheckInputs(const RunInputs& inputs) {
  LS_ASSIGN_OR_RETURN(const RunInputs stored, Inputs());
  constexpr char kUnknown[] = "not known";
  std::map<std::string, std::pair<std::string, std::string>> values;  // before, now
  for (const auto& [key, value] : stored) {
    if (!IsNote(key)) values[key] = {value, kUnknown};
  }
  for (const auto& [key, value] : inputs) {
    auto& [before, now] = values.emplace(key, std::pair(kUnknown, kUnknown)).first->second;
    now = value;
  }
  for (const auto& [key, value] : values) {
    const auto& [before, now] = value;
    if (before == now) continue;
    return Status(StatusCode::kInvalidArgument, dir_ + " holds the results of another run: its " + key + " was " +
                                                    before + " and is now " + now + "; give another --out");
  }
  return Status::Ok();
}

Result<std::set<std::pair<std::string, std::string>>> ResultStore::Finished() {
  LS_ASSIGN_OR_RETURN(SqlStatement select, database_.Prepare("SELECT dialogue, policy FROM plays WHERE error = ''"));
  std::set<std::pair<std::string, std::string>> finished;
  while (true) {
    LS_ASSIGN_OR_RETURN(const bool has_row, select.Step());
    if (!has_row) return finished;
    finished.emplace(select.Text(0), select.Text(1));
  }
}

template <typename Write>
Status ResultStore::InTransaction(Write write) {
  LS_RETURN_IF_ERROR(database_.Execute("BEGIN IMMEDIATE"));
  Status status = write();
  if (status.ok()) status = database_.Execute("COMMIT");
  // Some errors have rolled it back already: then this one says so, and there is nothing to do.
  if (!status.ok()) (void)database_.Execute("ROLLBACK");
  return status;
}

Status ResultStore::Add(const PlayedDialogue& played) {
  return InTransaction([&] { return AddInTransaction(played); });
}

Status ResultStore::Define(const RunInputs& policies, const RunInputs& dialogues) {
  return InTransaction([&]() -> Status {
    LS_RETURN_IF_ERROR(AddDefinitions("policy", policies));
    return AddDefinitions("dialogue", dialogues);
  });
}

Status ResultStore::AddDefinitions(const std::string& kind, const RunInputs& values) {
  LS_ASSIGN_OR_RETURN(const RunInputs stored, Definitions(kind));
  const std::map<std::string, std::string> before(stored.begin(), stored.end());
  LS_ASSIGN_OR_RETURN(SqlStatement insert, database_.Prepare("INSERT INTO definitions VALUES (?, ?, ?)"));
  insert.Bind(0, std::string_view(kind));
  for (const auto& [name, value] : values) {
    const auto found = before.find(name);
    if (found != before.end() && found->second != value) {
      return Status(StatusCode::kInvalidArgument, dir_ + " holds the results of another " + kind + " " + name +
                                                      ": it was " + found->second + " and is now " + value +
                                                      "; give another --out");
    }
    if (found != before.end()) continue;
    insert.Bind(1, std::string_view(name));
    insert.Bind(2, std::string_view(value));
    LS_RETURN_IF_ERROR(insert.Run());
  }
  return Status::Ok();
}

Result<RunInputs> ResultStore::Definitions(const std::string& kind) {
  LS_ASSIGN_OR_RETURN(SqlStatement select,
                      database_.Prepare("SELECT name, value FROM definitions WHERE kind = ? ORDER BY rowid"));
  select.Bind(0, std::string_view(kind));
  return Pairs(select);
}

Status ResultStore::AddInTransaction(const PlayedDialogue& played) {
  LS_ASSIGN_OR_RETURN(SqlStatement forget, database_.Prepare("DELETE FROM plays WHERE dialogue = ? AND policy = ?"));
  LS_ASSIGN_OR_RETURN(SqlStatement add_play, database_.Prepare("INSERT INTO plays (dialogue, policy, threads, error) "
                                                               "VALUES (?, ?, ?, ?)"));
  for (SqlStatement* statement : {&forget, &add_play}) {
    statement->Bind(0, std::string_view(played.dialogue));
    statement->Bind(1, std::string_view(played.policy));
  }
  LS_RETURN_IF_ERROR(forget.Run());
  add_play.Bind(2, played.threads);
  add_play.Bind(3, std::string_view(played.error));
  LS_RETURN_IF_ERROR(add_play.Run());
  const int64_t play = database_.last_row_id();
  const std::string marks = ListFields([](const TurnField&) { return std::string("?"); });
  LS_ASSIGN_OR_RETURN(SqlStatement add_turn,
                      database_.Prepare("INSERT INTO turns (play, " + NamesOfFields() + ") VALUES (?, " + marks + ")"));
  for (const PlayedTurn& turn : played.turns) {
    add_turn.Bind(0, play);
    int parameter = 0;
    for (const TurnField& field : TurnFields()) BindField(turn, field, ++parameter, &add_turn);
    LS_RETURN_IF_ERROR(add_turn.Run());
  }
  return Status::Ok();
}

Result<StoredResults> ResultStore::Load() {
  StoredResults results;
  LS_ASSIGN_OR_RETURN(results.run, Inputs());
  LS_ASSIGN_OR_RETURN(results.policies, Definitions("policy"));
  LS_ASSIGN_OR_RETURN(results.dialogues, Definitions("dialogue"));
  LS_ASSIGN_OR_RETURN(results.played, All());
  return results;
}

Result<int64_t> ResultStore::Merge(const StoredResults& others) {
  int64_t added = 0;
  LS_RETURN_IF_ERROR(InTransaction([&] { return MergeInTransaction(others, &added); }));
  return added;
}

Status ResultStore::MergeInTransaction(const StoredResults& others, int64_t* added) {
  LS_ASSIGN_OR_RETURN(const auto finished, Finished());
  LS_RETURN_IF_ERROR(AddDefinitions("policy", others.policies));
  LS_RETURN_IF_ERROR(AddDefinitions("dialogue", others.dialogues));
  for (const PlayedDialogue& played : others.played) {
    if (!played.error.empty() || finished.count({played.dialogue, played.policy}) > 0) continue;
    LS_RETURN_IF_ERROR(AddInTransaction(played));
    ++*added;
  }
  return Status::Ok();
}

Result<std::vector<PlayedTurn>> ResultStore::TurnsOf(int64_t play) {
  LS_ASSIGN_OR_RETURN(SqlStatement select,
                      database_.Prepare("SELECT " + NamesOfFields() + " FROM turns WHERE play = ? ORDER BY turn"));
  select.Bind(0, play);
  std::vector<PlayedTurn> turns;
  while (true) {
    LS_ASSIGN_OR_RETURN(const bool has_row, select.Step());
    if (!has_row) return turns;
    PlayedTurn& turn = turns.emplace_back();
    int column = 0;
    for (const TurnField& field : TurnFields()) LS_RETURN_IF_ERROR(ReadField(select, column++, field, &turn));
  }
}

Result<std::vector<PlayedDialogue>> ResultStore::All() {
  LS_ASSIGN_OR_RETURN(SqlStatement select,
                      database_.Prepare("SELECT id, dialogue, policy, threads, error FROM plays ORDER BY id"));
  std::vector<PlayedDialogue> all;
  while (true) {
    LS_ASSIGN_OR_RETURN(const bool has_row, select.Step());
    if (!has_row) return all;
    PlayedDialogue& played = all.emplace_back();
    played.dialogue = select.Text(1);
    played.policy = select.Text(2);
    played.threads = select.Integer(3);
    played.error = select.Text(4);
    LS_ASSIGN_OR_RETURN(played.turns, TurnsOf(select.Integer(0)));
  }
}

}  // namespace loopserve::eval
