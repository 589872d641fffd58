#include "src/server/session_pool.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <utility>

#include "src/base/check.h"

namespace loopserve::server {
namespace {

/// A save that takes longer is not waited for any more: what it holds is lost to the budget until it ends.
constexpr auto kLongestWrite = std::chrono::seconds(5);

double SecondsSinceEpoch() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string RandomId() {
  static std::random_device device;  // engine's thread only
  char text[32];
  std::snprintf(text, sizeof(text), "sess_%08x%08x", device(), device());
  return text;
}

/// A file has no place for what an eviction policy kept.
bool IsStorable(const std::string& policy) {
  const auto parsed = Policy::Parse(policy);
  return parsed.ok() && parsed->eviction().method == EvictionSettings::Method::kNone;
}

}  // namespace

size_t SessionPool::BytesToRead(const HeldDialogue& dialogue) const {
  if (dialogue.on_disk_as.empty()) return 0;
  return engine_->kv_bytes_for(*Policy::Parse(dialogue.policy), std::ssize(*dialogue.tokens));
}

bool SessionPool::Prepare(Lease* lease, std::chrono::milliseconds wait) {
  HeldDialogue& dialogue = *lease->dialogue;
  if (!dialogue.on_disk_as.empty()) {
    dialogue.reading = store_->Restore(dialogue.on_disk_as);
    const std::lock_guard lock(mutex_);
    dialogue.on_disk_as.clear();
  }
  if (!dialogue.reading.valid()) return true;
  if (dialogue.reading.wait_for(wait) != std::future_status::ready) return false;
  Result<Session> session = dialogue.reading.get();
  const std::lock_guard lock(mutex_);
  if (session.ok()) {
    dialogue.session = std::move(session).value();
  } else {
    lease->divergence = Divergence{0, "not_held"};
    dialogue.tokens = std::make_shared<std::vector<Token>>();
  }
  return true;
}

void SessionPool::Release(HeldDialogue* dialogue, int64_t prompt_tokens) {
  LS_CHECK(dialogue->busy);
  const std::span<const Token> tokens = dialogue->session.tokens();
  auto copy = std::make_shared<const std::vector<Token>>(tokens.begin(), tokens.end());
  bool drop = false;
  {
    const std::lock_guard lock(mutex_);
    dialogue->busy = false;
    if (prompt_tokens > 0) {
      dialogue->prompt_tokens = prompt_tokens;
      ++dialogue->turns;
    }
    dialogue->tokens = std::move(copy);
    dialogue->kv_bytes = dialogue->session.kv_bytes();
    dialogue->exclusive_kv_bytes = dialogue->session.exclusive_kv_bytes();
    Touch(dialogue);
    drop = dialogue->doomed || tokens.empty();
  }
  if (drop) {
    Drop(dialogue);
  } else if (prompt_tokens > 0) {
    (void)SaveNow(*dialogue);
  }
}

Result<SessionPool::OnDisk> SessionPool::SaveNow(const HeldDialogue& d) {
  // One that is still being read from disk is there.
  if (store_ == nullptr || d.session.tokens().empty()) return OnDisk();
  if (!IsStorable(d.policy))
    return Status(StatusCode::kUnsupported, "a session under the policy " + d.policy + " cannot be stored");
  auto tokens = d.tokens;
  if (d.busy) {
    const std::span<const Token> now = d.session.tokens();
    tokens = std::make_shared<const std::vector<Token>>(now.begin(), now.end());
  }
  return store_->Save({d.id, d.name_space, d.name, d.policy, std::move(tokens), d.prompt_tokens, d.turns, d.created_s,
                       d.used_s, 0, d.pinned},
                      d.session.Fork());
}

void SessionPool::SaveAll() {
  if (store_ == nullptr) return;
  for (const auto& dialogue : dialogues_) {
    const auto state = store_->StateOf(dialogue->id);
    const bool is_missing = state == DialogueStore::SaveState::kNever || state == DialogueStore::SaveState::kFailed;
    if (is_missing && !dialogue->busy && !dialogue->doomed) (void)SaveNow(*dialogue);
  }
}

bool SessionPool::MakeRoom(size_t bytes) {
  const auto fits = [&] {
    return options_.kv_budget_bytes == 0 || engine_->kv_used_bytes() + bytes <= options_.kv_budget_bytes;
  };
  while (!fits()) {
    const HeldDialogue* oldest = LeastRecentlyUsed();
    if (oldest == nullptr) {
      // What is being written may hold the memory of dialogues that are gone. While others run they are waited for.
      const auto n_busy = std::ranges::count_if(dialogues_, [](const auto& d) { return d->busy; });
      if (store_ == nullptr || n_busy > 1) return false;
      store_->WaitWritten(kLongestWrite);
      return fits();
    }
    if (store_ != nullptr) store_->WaitSaved(oldest->id, kLongestWrite);
    Unload(oldest);
  }
  return true;
}

HeldDialogue* SessionPool::NewDialogue(const NameSpace& name_space, const SessionName& name, const Policy& policy) {
  return Insert(RandomId(), engine_->NewSession(policy), name_space, name, policy.ToString());
}

HeldDialogue* SessionPool::ForkOf(const HeldDialogue& source, const SessionName& name) {
  Session session = source.session.Fork();  // before Insert, which may unload the source
  const int64_t prompt_tokens = source.prompt_tokens, turns = source.turns;
  HeldDialogue* fork = Insert(RandomId(), std::move(session), source.name_space, name, source.policy);
  const std::lock_guard lock(mutex_);
  fork->prompt_tokens = prompt_tokens;
  fork->turns = turns;
  return fork;
}

HeldDialogue* SessionPool::FromDisk(const StoredDialogue& stored) {
  const auto policy = Policy::Parse(stored.policy);
  LS_CHECK(policy.ok());  // the index holds no others
  HeldDialogue* dialogue =
      Insert(stored.id, engine_->NewSession(*policy), stored.name_space, stored.name, stored.policy);
  const std::lock_guard lock(mutex_);
  dialogue->on_disk_as = stored.id;
  dialogue->tokens = stored.tokens;
  dialogue->prompt_tokens = stored.prompt_tokens;
  dialogue->turns = stored.turns;
  dialogue->created_s = stored.created_s;
  dialogue->pinned = stored.pinned;
  return dialogue;
}

HeldDialogue* SessionPool::ForkFromDisk(const StoredDialogue& stored, const SessionName& name) {
  const auto policy = Policy::Parse(stored.policy);
  LS_CHECK(policy.ok());
  HeldDialogue* fork = Insert(RandomId(), engine_->NewSession(*policy), stored.name_space, name, stored.policy);
  const std::lock_guard lock(mutex_);
  fork->on_disk_as = stored.id;
  fork->tokens = stored.tokens;
  fork->prompt_tokens = stored.prompt_tokens;
  fork->turns = stored.turns;
  return fork;
}

HeldDialogue* SessionPool::Insert(std::string id, Session session, NameSpace name_space, SessionName name,
                                  std::string policy) {
  while (size() >= options_.max_sessions) {
    const HeldDialogue* oldest = LeastRecentlyUsed();
    if (oldest == nullptr) break;  // all are busy or pinned: as many as may run at once come on top
    Unload(oldest);
  }
  auto dialogue = std::make_unique<HeldDialogue>(std::move(id), std::move(session));
  dialogue->name_space = std::move(name_space);
  dialogue->name = std::move(name);
  dialogue->policy = std::move(policy);
  dialogue->created_s = SecondsSinceEpoch();
  const std::lock_guard lock(mutex_);
  Touch(dialogue.get());
  return dialogues_.emplace_back(std::move(dialogue)).get();
}

void SessionPool::Unload(const HeldDialogue* dialogue) {
  const auto state = store_ == nullptr ? DialogueStore::SaveState::kNever : store_->StateOf(dialogue->id);
  const bool is_there = state == DialogueStore::SaveState::kSaved || state == DialogueStore::SaveState::kPending;
  ++(is_there ? n_unloaded_ : n_dropped_);
  Drop(dialogue);
}

void SessionPool::Drop(const HeldDialogue* dialogue) {
  std::unique_ptr<HeldDialogue> dropped;  // its KV is freed outside of the lock
  const std::lock_guard lock(mutex_);
  const auto at = std::ranges::find(dialogues_, dialogue, &std::unique_ptr<HeldDialogue>::get);
  LS_CHECK(at != dialogues_.end() && !dialogue->busy);
  dropped = std::move(*at);
  dialogues_.erase(at);
}

HeldDialogue* SessionPool::Named(const NameSpace& name_space, const std::string& name) const {
  for (const auto& d : dialogues_) {
    if (d->name.exclusive && d->name.value == name && d->name_space == name_space && !d->doomed) return d.get();
  }
  return nullptr;
}

HeldDialogue* SessionPool::OfId(const std::string& id) const {
  const auto at = std::ranges::find_if(dialogues_, [&](const auto& d) { return d->id == id; });
  return at == dialogues_.end() ? nullptr : at->get();
}

HeldDialogue* SessionPool::LeastRecentlyUsed() const {
  HeldDialogue* oldest = nullptr;
  bool is_written = false;
  for (const auto& d : dialogues_) {
    if (d->busy || d->pinned) continue;
    // One that is on disk can go at once.
    const bool written = store_ == nullptr || store_->StateOf(d->id) != DialogueStore::SaveState::kPending;
    if (oldest != nullptr && std::pair(written, oldest->used) <= std::pair(is_written, d->used)) continue;
    oldest = d.get();
    is_written = written;
  }
  return oldest;
}

void SessionPool::Touch(HeldDialogue* dialogue) {
  dialogue->used = ++uses_;
  dialogue->used_s = SecondsSinceEpoch();
}

}  // namespace loopserve::server
