// The dialogues that the server holds between requests, each with its KV. A request finds its dialogue by name or by
// the longest token prefix; where it goes another way than a dialogue that is worth keeping, it goes on in a fork.
//
// Memory: idle dialogues are dropped, least recently used first, until what is needed fits (MakeRoom). Drop is the one
// place where a dialogue leaves memory, NewDialogue the one where an empty one comes in: a store on disk would take
// them there, and give them back there.
//
// Thread rule: what changes dialogues is for the engine's thread; List and HeldTokens are thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "src/server/job.h"

namespace loopserve::server {

struct PoolOptions {
  size_t kv_budget_bytes = 0;  ///< as the engine's; 0 = no limit
  size_t max_sessions = 256;   ///< beside KV each holds some 100 KB: its tokens and last logits
};

/// Forks are made where at least this many tokens are shared: one block of KV.
inline constexpr int64_t kMinForkTokens = 256;

struct HeldDialogue {
  HeldDialogue(std::string id_in, Session session_in) : id(std::move(id_in)), session(std::move(session_in)) {}

  const std::string id;
  Session session;
  NameSpace name_space;
  SessionName name;
  std::string policy;
  std::shared_ptr<const std::vector<Token>> tokens = std::make_shared<std::vector<Token>>();  ///< after the last turn
  int64_t prompt_tokens = 0;  ///< of the last turn: what follows is an answer
  int64_t turns = 0;
  size_t kv_bytes = 0, exclusive_kv_bytes = 0;
  double created_s = 0, used_s = 0;  ///< since the epoch
  uint64_t used = 0;                 ///< counts up with every use
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
};

class SessionPool {
 public:
  SessionPool(std::shared_ptr<Engine> engine, const PoolOptions& options)
      : engine_(std::move(engine)), options_(options) {}

  struct Lease {
    HeldDialogue* dialogue = nullptr;  ///< null: it is busy with another turn
    std::optional<Divergence> divergence;
  };
  /// The dialogue in which `spec` goes on, busy from now on.
  Lease Acquire(const JobSpec& spec);
  /// Its turn is over, whose prompt had so many tokens; 0: there was none. One that holds nothing is dropped.
  void Release(HeldDialogue* dialogue, int64_t prompt_tokens);

  /// Drops idle dialogues until `bytes` more would fit; false where they would not, even so.
  bool MakeRoom(size_t bytes);

  /// Tokens that a new prompt probably goes on from, for Engine::RenderChat; null if there are none.
  std::shared_ptr<const std::vector<Token>> HeldTokens(const NameSpace& name_space, const SessionName& name,
                                                       const Policy& policy, std::span<const Token> prompt) const;

  /// Of one tenant; all salts, or one.
  std::vector<SessionInfo> List(const std::string& tenant) const;
  /// kNotFound for another tenant's. Delete: a busy one goes when its turn is over.
  Status Delete(const std::string& tenant, const std::string& id);
  Status SetPinned(const std::string& tenant, const std::string& id, bool pinned);
  /// A copy that shares its KV, under a name of its own or none; its id. kInvalidArgument for a name in use.
  Result<std::string> Fork(const std::string& tenant, const std::string& id, const std::string& name);

  size_t size() const;
  int64_t n_dropped() const { return n_dropped_; }

 private:
  HeldDialogue* NewDialogue(const NameSpace& name_space, const SessionName& name, const Policy& policy);
  HeldDialogue* ForkOf(const HeldDialogue& source, const SessionName& name);
  HeldDialogue* Insert(Session session, const NameSpace& name_space, const SessionName& name,
                       const std::string& policy);
  void Drop(const HeldDialogue* dialogue);
  HeldDialogue* Named(const NameSpace& name_space, const std::string& name) const;
  HeldDialogue* Find(const std::string& tenant, const std::string& id) const;
  HeldDialogue* LeastRecentlyUsed() const;
  void Touch(HeldDialogue* dialogue);

  const std::shared_ptr<Engine> engine_;
  const PoolOptions options_;
  mutable std::mutex mutex_;  ///< guards the list, and of dialogues what List and HeldTokens read
  std::vector<std::unique_ptr<HeldDialogue>> dialogues_;
  uint64_t uses_ = 0;
  int64_t n_dropped_ = 0;
};

}  // namespace loopserve::server
