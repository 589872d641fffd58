// SQLite with errors as values: what a result file needs of it, and no more. Nothing but sqlite_db.cc sees its header.
// Thread rule: one thread at a time per database and its statements.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "loopserve/status.h"

struct sqlite3;
struct sqlite3_stmt;

namespace loopserve::eval {

/// One prepared statement. Parameters and columns are numbered from 0. It must not outlive its database.
class SqlStatement {
 public:
  void Bind(int parameter, int64_t value);
  void Bind(int parameter, std::string_view value);
  void Bind(int parameter, const std::optional<double>& value);
  /// True: there is a row to read. False: done, and the statement can be bound and stepped anew.
  Result<bool> Step();
  /// For statements that give no rows.
  Status Run() { return Step().status(); }

  int64_t Integer(int column) const;
  std::string Text(int column) const;
  std::optional<double> Number(int column) const;

 private:
  friend class SqlDatabase;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  SqlStatement(sqlite3* database, sqlite3_stmt* statement, const std::string* path)
      : database_(database), statement_(statement), path_(path) {}

  sqlite3* database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  const std::string* path_;  // of the database, for messages
};

class SqlDatabase {
 public:
  enum class Mode { kRead, kCreate };

  /// kCreate makes the file where there is none. Errors, here and below, name the file: kNotFound, kIoError (no
  /// permission, in use), kResourceExhausted (a full disk), kCorruptData (damaged, or no database at all).
  static Result<SqlDatabase> Open(const std::string& path, Mode mode);

  /// One or more statements that give no rows.
  Status Execute(const std::string& sql);
  Result<SqlStatement> Prepare(const std::string& sql);
  /// The first column of the first row; 0 without one.
  Result<int64_t> QueryInteger(const std::string& sql);
  int64_t last_row_id() const;

 private:
  struct Close {
    void operator()(sqlite3* database) const;
  };
  SqlDatabase(sqlite3* database, std::unique_ptr<std::string> path) : path_(std::move(path)), database_(database) {}

  std::unique_ptr<std::string> path_;  // at an address of its own: statements refer to it
  std::unique_ptr<sqlite3, Close> database_;
};

}  // namespace loopserve::eval
