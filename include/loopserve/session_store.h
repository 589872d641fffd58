// Dialogues on disk: a session is saved with all its keys and values, and goes on after a restart as if there had been
// none: the same answers, bit for bit, for the same threads, and nothing is read again. docs/snapshot_format.md has the
// file.
//
// A save is whole or did not happen, whenever the process or the machine dies. Saving again writes what is new since.
// A file that is damaged, of another model, tokenizer, KV precision, matrix product or a later format is refused, and
// the message says which; ReadText may still give the tokens and the metadata to go on from.
//
// What an eviction policy (EvictionSettings) kept has no place in a file: such sessions are not stored.
//
// Thread rule: everything here is thread-safe, but a session must not compute while it is saved. To save while a
// dialogue goes on, Fork() it on the thread that computes (no KV is copied) and save the fork, on any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/status.h"

namespace loopserve {

struct SaveStats {
  uint64_t written_bytes = 0;
  uint64_t kept_bytes = 0;  ///< that the file had already
  uint64_t file_bytes = 0;  ///< afterwards
  bool appended = false;    ///< to the file that was there; else it was written anew
  double elapsed_ms = 0;
  std::vector<std::string> deleted;  ///< ids of sessions that gave way to the budget
};

struct RestoredSession {
  Session session;       ///< under the policy that it was saved with (Session::policy)
  std::string metadata;  ///< as it was saved
  double elapsed_ms = 0;
};

/// What a stored dialogue says without a model.
struct StoredText {
  std::string policy;
  std::vector<Token> tokens;
  std::string metadata;
};

struct StoredSessionInfo {
  std::string id;
  int64_t n_tokens = 0;
  uint64_t file_bytes = 0;
  bool pinned = false;
  int64_t saved_unix_ms = 0;
  int64_t last_used_unix_ms = 0;  ///< saved or restored
  std::string model_name;         ///< for people
};

struct SessionStoreOptions {
  /// Made where it is missing (its parent must exist), for its owner alone. Several processes may use one folder.
  std::string directory;
  /// Most bytes of all stored sessions together; 0 = no limit. The file of one that is written anew counts once, though
  /// for a moment both are there. What is not pinned gives way, the least recently used first.
  uint64_t budget_bytes = 0;
  /// Refuse a folder in which another store that asked for the same is open, in whatever process: for whoever keeps in
  /// memory what the folder holds. Stores that do not ask may still read and write it.
  bool alone = false;
};

class SessionFolder;

/// Sessions by id in one folder. Ids: 1 to 512 bytes of UTF-8 without control characters; they never become paths.
class SessionStore {
 public:
  /// Also removes what a save left that did not come to its end. kInvalidArgument, kNotFound, kIoError;
  /// kResourceExhausted: another one is `alone` in it.
  static Result<std::unique_ptr<SessionStore>> Open(const SessionStoreOptions& options);
  ~SessionStore();

  /// metadata: for the caller, up to 64 MiB (a server's messages, keys, times), given back as it is. Errors leave what
  /// was stored before: kInvalidArgument (id, metadata), kResourceExhausted (disk or budget full), kIoError,
  /// kUnsupported (a later format is there; a policy that evicts).
  Result<SaveStats> Save(const Session& session, std::string_view id, std::string_view metadata = {});
  /// Errors: kNotFound, kCorruptData, kUnsupported (belongs to another model, ...), kContextLength, kResourceExhausted
  /// (the engine's KV budget), kIoError.
  Result<RestoredSession> Restore(const Engine& engine, std::string_view id);
  /// Does not count as a use. kNotFound, kCorruptData, kUnsupported (a later format), kIoError.
  Result<StoredText> ReadText(std::string_view id);
  /// Whether Restore would find a session of this engine: the first few KB of the file are looked at, and it does not
  /// count as a use. Errors: those of Restore, but for what lies in the rest.
  Status CheckFits(const Engine& engine, std::string_view id);
  /// The most recently used first. n_unreadable may be null: damaged files, which are left out.
  Result<std::vector<StoredSessionInfo>> List(int* n_unreadable = nullptr);
  /// What counts against the budget: all files of sessions, readable or not.
  Result<uint64_t> UsedBytes();
  /// kNotFound, kIoError.
  Status Delete(std::string_view id);
  /// A pinned session never gives way. kNotFound, kCorruptData, kIoError.
  Status SetPinned(std::string_view id, bool pinned);

 private:
  explicit SessionStore(std::unique_ptr<SessionFolder> folder);
  std::unique_ptr<SessionFolder> folder_;
};

/// The same for one file, without a store around it, with the same errors. A file that exists and is no stored session
/// is not overwritten.
Result<SaveStats> SaveSession(const Session& session, const std::string& path, std::string_view metadata = {});
Result<RestoredSession> RestoreSession(const Engine& engine, const std::string& path);
Result<StoredText> ReadSessionText(const std::string& path);

}  // namespace loopserve
