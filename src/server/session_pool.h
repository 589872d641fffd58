// The dialogues that the server holds between requests, each with its KV. A request finds its dialogue by name or by
// the longest token prefix; where it goes another way than a dialogue that is worth keeping, it goes on in a fork.
//
// Memory: idle dialogues leave it, least recently used first, until what is needed fits (MakeRoom).
//
// Disk, where there is a store: a dialogue is saved at the end of each turn, by a fork that another thread writes. Who
// leaves memory is then there already, at most its last save is waited for. Acquire finds dialogues on disk as those in
// memory, by what the store knows of them; such a one comes in without its KV, and Prepare has it read.
//
// Thread rule: what changes dialogues is for the engine's thread; List and HeldTokens are thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "src/server/dialogue_store.h"
#include "src/server/job.h"

namespace loopserve::server {

struct PoolOptions {
  size_t kv_budget_bytes = 0;      ///< as the engine's; 0 = no limit
  size_t max_sessions = 256;       ///< in memory; beside KV each holds some 100 KB: its tokens and last logits
  DialogueStore* store = nullptr;  ///< must outlive the pool; null: dialogues live in memory only
};

/// Forks are made where at least this many tokens are shared: one block of KV.
inline constexpr int64_t kMinForkTokens = 256;

struct HeldDialogue {
  HeldDialogue(std::string id_in, Session session_in) : id(std::move(id_in)), session(std::move(session_in)) {}

  const std::string id;
  Session session;
  NameSpace name_space;  ///< sealed (stored_dialogue.h), so that one from disk is as any other
  SessionName name;
  std::string policy;
  std::shared_ptr<const std::vector<Token>> tokens = std::make_shared<std::vector<Token>>();  ///< after the last turn
  int64_t prompt_tokens = 0;  ///< of the last turn: what follows is an answer
  int64_t turns = 0;
  size_t kv_bytes = 0, exclusive_kv_bytes = 0;
  double created_s = 0, used_s = 0;      ///< since the epoch
  uint64_t used = 0;                     ///< counts up with every use
  std::string on_disk_as;                ///< the stored dialogue whose KV is still to be read; empty: there is none
  std::future<Result<Session>> reading;  ///< while it is read
  bool busy = false;
  bool pinned = false;
  bool doomed = false;  ///< to be dropped when it is no longer busy
};

/// What List tells of a dialogue.
struct SessionInfo {
  std::string id, name, policy;
  int64_t tokens = 0, turns = 0;
  size_t kv_bytes = 0, exclusive_kv_bytes = 0;
  double created_s = 0, used_s = 0;
  bool busy = false, pinned = false;
  bool in_memory = false, on_disk = false;
  bool saved = false;  ///< the newest state is on disk
  uint64_t disk_bytes = 0;
};

class SessionPool {
 public:
  SessionPool(std::shared_ptr<Engine> engine, const PoolOptions& options)
      : engine_(std::move(engine)), options_(options) {}

  struct Lease {
    HeldDialogue* dialogue = nullptr;  ///< null: it is busy with another turn
    std::optional<Divergence> divergence;
  };
  /// The dialogue in which `spec` goes on, busy from now on; it may have to be read from disk (Prepare).
  Lease Acquire(const JobSpec& spec);
  /// Has the dialogue's KV read from disk, where it must be, after room was made for it. False while that goes on,
  /// after at most so long. What cannot be read is an empty dialogue, and the lease says so.
  bool Prepare(Lease* lease, std::chrono::milliseconds wait);
  /// KV bytes that Prepare will take; 0 once it was called.
  size_t BytesToRead(const HeldDialogue& dialogue) const;
  /// Its turn is over, whose prompt had so many tokens; 0: there was none. One that holds nothing is dropped.
  void Release(HeldDialogue* dialogue, int64_t prompt_tokens);

  /// Idle dialogues leave memory until `bytes` more would fit; false where they would not, even so.
  bool MakeRoom(size_t bytes);
  /// Gives the store what is not on disk yet; it writes all before it goes.
  void SaveAll();

  /// Tokens that a new prompt probably goes on from, for Engine::RenderChat; null if there are none.
  std::shared_ptr<const std::vector<Token>> HeldTokens(const NameSpace& name_space, const SessionName& name,
                                                       const Policy& policy, std::span<const Token> prompt) const;

  /// Of one tenant; all salts, or one.
  std::vector<SessionInfo> List(const std::string& tenant) const;
  /// What is to be done on disk: for who wants to wait for it, on another thread. Not valid: nothing is.
  using OnDisk = std::shared_future<Status>;
  /// kNotFound for another tenant's. Delete: a busy one goes when its turn is over.
  Result<OnDisk> Delete(const std::string& tenant, const std::string& id);
  Result<OnDisk> SetPinned(const std::string& tenant, const std::string& id, bool pinned);
  /// kUnsupported where there is no store, or its policy cannot be stored.
  Result<OnDisk> Save(const std::string& tenant, const std::string& id);
  /// A copy under a name of its own or none, busy until it is released; of one in memory it shares the KV, of one on
  /// disk it must be prepared. kInvalidArgument for a name in use, kResourceExhausted.
  Result<Lease> Fork(const std::string& tenant, const std::string& id, const std::string& name);

  size_t size() const;
  int64_t n_dropped() const { return n_dropped_; }    ///< that left memory and are on no disk
  int64_t n_unloaded() const { return n_unloaded_; }  ///< that left memory and are on disk

 private:
  /// Where a request might go on: in memory, or on disk alone.
  struct Match {
    HeldDialogue* held = nullptr;
    DialogueStore::Entry stored;
    int64_t common = 0;
    bool in_place = false;  ///< else in a fork
    bool extends = false;   ///< all that it holds is a prefix
  };
  // Name spaces are sealed from here on.
  Lease Take(const JobSpec& spec, HeldDialogue* dialogue, std::optional<Divergence> divergence);
  std::optional<Lease> AcquireNamed(const JobSpec& spec, const NameSpace& name_space);
  Match LongestInMemory(const JobSpec& spec, const NameSpace& name_space) const;
  Match LongestOnDisk(const JobSpec& spec, const NameSpace& name_space) const;
  HeldDialogue* NewDialogue(const NameSpace& name_space, const SessionName& name, const Policy& policy);
  HeldDialogue* ForkOf(const HeldDialogue& source, const SessionName& name);
  /// The dialogue itself, or a fork of it under a name of its own; its KV is still to be read.
  HeldDialogue* FromDisk(const StoredDialogue& stored);
  HeldDialogue* ForkFromDisk(const StoredDialogue& stored, const SessionName& name);
  /// Everything by value: to make room it may unload the dialogue that these come from.
  HeldDialogue* Insert(std::string id, Session session, NameSpace name_space, SessionName name, std::string policy);
  Result<OnDisk> SaveNow(const HeldDialogue& dialogue);
  /// It leaves memory; what is being written of it is waited for, so that its memory is free.
  void Unload(const HeldDialogue* dialogue);
  void Drop(const HeldDialogue* dialogue);
  HeldDialogue* Named(const NameSpace& name_space, const std::string& name) const;
  HeldDialogue* OfId(const std::string& id) const;
  HeldDialogue* Find(const NameSpace& unsalted, const std::string& id) const;
  DialogueStore::Entry FindOnDisk(const NameSpace& unsalted, const std::string& id) const;
  bool IsTaken(const NameSpace& name_space, const std::string& name) const;
  HeldDialogue* LeastRecentlyUsed() const;
  void Touch(HeldDialogue* dialogue);

  const std::shared_ptr<Engine> engine_;
  const PoolOptions options_;
  DialogueStore* const store_ = options_.store;
  mutable std::mutex mutex_;  ///< guards the list, and of dialogues what List and HeldTokens read
  std::vector<std::unique_ptr<HeldDialogue>> dialogues_;
  uint64_t uses_ = 0;
  int64_t n_dropped_ = 0;
  int64_t n_unloaded_ = 0;
};

}  // namespace loopserve::server
