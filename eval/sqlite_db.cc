#include "eval/sqlite_db.h"

#include <sqlite3.h>

#include <cmath>
#include <filesystem>
#include <utility>

namespace loopserve::eval {
namespace {

// A reader that looks at the file meanwhile is done within a moment.
constexpr int kBusyTimeoutMs = 10'000;

Status ErrorOf(sqlite3* database, int code, const std::string& path) {
  const std::string why = database != nullptr ? sqlite3_errmsg(database) : sqlite3_errstr(code);
  switch (code & 0xff) {
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG:
      return Status(StatusCode::kResourceExhausted, "cannot write " + path + ": " + why);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
      return Status(StatusCode::kCorruptData, path + " is damaged: " + why);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Status(StatusCode::kIoError, path + " is in use by another program");
    case SQLITE_READONLY:
      return Status(StatusCode::kIoError, "cannot write " + path + ": " + why);
    case SQLITE_CANTOPEN:
      return Status(StatusCode::kIoError, "cannot open " + path + ": " + why);
    default:
      return Status(StatusCode::kIoError, path + ": " + why);
  }
}

}  // namespace

void SqlStatement::Finalize::operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
void SqlDatabase::Close::operator()(sqlite3* database) const { sqlite3_close_v2(database); }

void SqlStatement::Bind(int parameter, int64_t value) { sqlite3_bind_int64(statement_.get(), parameter + 1, value); }

void SqlStatement::Bind(int parameter, std::string_view value) {
  // A null pointer would bind NULL.
  const char* bytes = value.empty() ? "" : value.data();
  sqlite3_bind_text64(statement_.get(), parameter + 1, bytes, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

void SqlStatement::Bind(int parameter, const std::optional<double>& value) {
  if (value && std::isfinite(*value)) {
    sqlite3_bind_double(statement_.get(), parameter + 1, *value);
  } else {
    sqlite3_bind_null(statement_.get(), parameter + 1);
  }
}

Result<bool> SqlStatement::Step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  // Taken before the reset, which clears the message.
  Status status = code == SQLITE_DONE ? Status::Ok() : ErrorOf(database_, code, *path_);
  sqlite3_reset(statement_.get());
  if (!status.ok()) return status;
  return false;
}

int64_t SqlStatement::Integer(int column) const { return sqlite3_column_int64(statement_.get(), column); }

std::string SqlStatement::Text(int column) const {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  const auto size = static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column));
  return bytes != nullptr ? std::string(bytes, size) : std::string();
}

std::optional<double> SqlStatement::Number(int column) const {
  if (sqlite3_column_type(statement_.get(), column) == SQLITE_NULL) return std::nullopt;
  return sqlite3_column_double(statement_.get(), column);
}

Result<SqlDatabase> SqlDatabase::Open(const std::string& path, Mode mode) {
  std::error_code error;
  if (mode != Mode::kCreate && !std::filesystem::exists(path, error)) {
    return Status(StatusCode::kNotFound, "there is no " + path);
  }
  // A reader too opens for writing, where it may: what a killed writer left half done must be taken back before the
  // file can be read. SQLite falls back to reading alone.
  int flags = SQLITE_OPEN_READWRITE;
  if (mode == Mode::kCreate) flags |= SQLITE_OPEN_CREATE;
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
  SqlDatabase database(raw, std::make_unique<std::string>(path));
  if (code != SQLITE_OK) return ErrorOf(raw, code, path);
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, kBusyTimeoutMs);
  // The file may come from anybody: nothing that its schema says is run.
  for (const auto& [option, value] :
       {std::pair(SQLITE_DBCONFIG_DEFENSIVE, 1), std::pair(SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
        std::pair(SQLITE_DBCONFIG_ENABLE_VIEW, 0), std::pair(SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)}) {
    sqlite3_db_config(raw, option, value, nullptr);
  }
  // SQLite silently opens for reading what it may not write: better said before hours of work than after them.
  if (mode != Mode::kRead && sqlite3_db_readonly(raw, "main") == 1) {
    return Status(StatusCode::kIoError, "cannot write " + path + ": no permission");
  }
  return database;
}

Status SqlDatabase::Execute(const std::string& sql) {
  const int code = sqlite3_exec(database_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? Status::Ok() : ErrorOf(database_.get(), code, *path_);
}

Result<SqlStatement> SqlDatabase::Prepare(const std::string& sql) {
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v2(database_.get(), sql.c_str(), static_cast<int>(sql.size()), &raw, nullptr);
  SqlStatement statement(database_.get(), raw, path_.get());
  if (code == SQLITE_OK) return statement;
  // A file with other tables than ours is not what it should be.
  if (code == SQLITE_ERROR) {
    return Status(StatusCode::kCorruptData, *path_ + " is damaged: " + sqlite3_errmsg(database_.get()));
  }
  return ErrorOf(database_.get(), code, *path_);
}

Result<int64_t> SqlDatabase::QueryInteger(const std::string& sql) {
  LS_ASSIGN_OR_RETURN(SqlStatement statement, Prepare(sql));
  LS_ASSIGN_OR_RETURN(const bool has_row, statement.Step());
  return has_row ? statement.Integer(0) : 0;
}

int64_t SqlDatabase::last_row_id() const { return sqlite3_last_insert_rowid(database_.get()); }

}  // namespace loopserve::eval
