// The server's dialogues on disk, over loopserve/session_store.h: an index in memory of what the folder holds (tokens,
// names, whose they are; read from the files when the server starts, so that nothing can disagree with them), one
// thread that writes and one that reads keys and values. Nobody who computes waits for a disk here.
//
// A dialogue that is saved is a fork of it, which shares its KV; until it is written that memory stays taken. Of a
// dialogue that is given twice before its turn comes the newer state is written.
//
// What goes wrong with a file or the disk is logged and counted, and never an error of a request: whoever looks for the
// dialogue does not find it, and reads its text again.
//
// Thread rule: thread-safe, but for ReadIndex, which comes before all others.
#pragma once

#include <chrono>
#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/session_store.h"
#include "src/server/background_thread.h"
#include "src/server/metrics.h"
#include "src/server/stored_dialogue.h"

namespace loopserve::server {

struct StoreOptions {
  std::string directory;      ///< empty: dialogues live in memory only
  uint64_t budget_bytes = 0;  ///< of all files together; 0: no limit
};

class DialogueStore {
 public:
  using Entry = std::shared_ptr<const StoredDialogue>;

  /// Takes the folder for this server alone. Errors: those of SessionStore::Open. metrics may be null; it must outlive
  /// this.
  static Result<std::unique_ptr<DialogueStore>> Open(const StoreOptions& options, Metrics* metrics);
  /// Writes what was given to it first.
  ~DialogueStore();

  /// Finds the dialogues that can go on in this engine. Others, and what is no dialogue of a server, are left alone.
  void ReadIndex(std::shared_ptr<Engine> engine);

  // Name spaces and tenants are sealed ones (stored_dialogue.h).
  /// The dialogue of this name (an exclusive one), or null.
  Entry Named(const NameSpace& name_space, const std::string& name) const;
  /// Those in which a request might go on.
  std::vector<Entry> Under(const NameSpace& name_space, const std::string& policy) const;
  /// Of one tenant, all salts.
  std::vector<Entry> OfTenant(const std::string& tenant) const;
  Entry OfId(const std::string& id) const;

  /// Saves a dialogue: `session` is a fork of it that nobody else touches. The future is for who wants to wait.
  std::shared_future<Status> Save(StoredDialogue dialogue, Session session);
  std::shared_future<Status> SetPinned(const std::string& id, bool pinned);
  /// It is not found from now on, and its file is gone when the future is there. Nothing may be saved under its id
  /// again.
  std::shared_future<Status> Delete(const std::string& id);
  /// Reads a dialogue with its keys and values. One that cannot go on is not found again.
  std::future<Result<Session>> Restore(const std::string& id);

  enum class SaveState {
    kNever,    ///< not given, or deleted
    kPending,  ///< waits to be written, or is being written
    kSaved,    ///< the file has what was given last
    kFailed,   ///< it has an earlier state, or there is none
    kGaveWay,  ///< it was deleted to keep the disk budget
  };
  SaveState StateOf(const std::string& id) const;
  /// Waits until it is not pending any more, or so long.
  SaveState WaitSaved(const std::string& id, std::chrono::milliseconds timeout) const;
  /// Waits until nothing is left to be written, or so long: false then.
  bool WaitWritten(std::chrono::milliseconds timeout) const;

 private:
  struct SaveJob {
    StoredDialogue dialogue;
    Session session;
    std::promise<Status> done;
    std::shared_future<Status> result = done.get_future().share();
  };
  struct Known {
    Entry on_disk;  ///< null: there is no file
    std::unique_ptr<SaveJob> waiting;
    bool writing = false;
    bool pinned = false;  ///< as it was last wanted
    bool doomed = false;  ///< deleted: what is being written of it does not count
    SaveState last = SaveState::kNever;
  };

  DialogueStore(std::unique_ptr<SessionStore> files, const StoreOptions& options, Metrics* metrics)
      : files_(std::move(files)), options_(options), metrics_(metrics) {}
  void ReadOne(const StoredSessionInfo& info);
  void WriteOne(const std::string& id);
  Result<SaveStats> Write(const SaveJob& job);
  void TakeNote(const std::string& id, const SaveJob& job, const Result<SaveStats>& stats);
  Result<Session> Read(const std::string& id);
  Result<Session> ReadAndCompare(const StoredDialogue& expected);
  void UpdateMetrics();
  void Note(const char* operation, const std::string& id, const Status& status) const;
  static bool IsPending(const Known& known) { return known.waiting != nullptr || known.writing; }

  const std::unique_ptr<SessionStore> files_;
  const StoreOptions options_;
  Metrics* const metrics_;
  std::shared_ptr<Engine> engine_;

  mutable std::mutex mutex_;
  mutable std::condition_variable written_;
  std::map<std::string, Known> known_;

  BackgroundThread writer_, reader_;  // last: they use the others
};

}  // namespace loopserve::server
