#include "src/server/session_pool.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <set>
#include <string_view>
#include <utility>

#include "src/base/check.h"

namespace loopserve::server {
namespace {

/// The end of a prompt that a template writes again when the turn is history: a header, an opened thinking tag.
constexpr int64_t kRewrittenTokens = 16;
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

int64_t CommonPrefix(std::span<const Token> a, std::span<const Token> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

/// Nothing but a part of the last answer would be lost by going on from `common` tokens.
bool OnlyTheAnswerDiffers(int64_t prompt_tokens, int64_t common) {
  const int64_t rewritten = std::min(kRewrittenTokens, prompt_tokens / 8);
  return prompt_tokens > 0 && common >= prompt_tokens - rewritten;
}

bool MayContinue(const SessionName& has, const SessionName& wanted) {
  if (!has.exclusive) return true;
  return wanted.exclusive && has.value == wanted.value;
}

/// What another dialogue's turns made a policy forget must not be missing in a fork; nor has a file a place for it.
bool Forgets(const Policy& policy) { return policy.eviction().method != EvictionSettings::Method::kNone; }

bool IsStorable(const std::string& policy) {
  const auto parsed = Policy::Parse(policy);
  return parsed.ok() && !Forgets(*parsed);
}

}  // namespace

SessionPool::Lease SessionPool::Take(const JobSpec& spec, HeldDialogue* dialogue,
                                     std::optional<Divergence> divergence) {
  const std::lock_guard lock(mutex_);
  dialogue->busy = true;
  if (!spec.name.value.empty()) dialogue->name = spec.name;
  Touch(dialogue);
  return {dialogue, std::move(divergence)};
}

std::optional<SessionPool::Lease> SessionPool::AcquireNamed(const JobSpec& spec, const NameSpace& name_space) {
  const std::string& policy = spec.policy.ToString();
  if (HeldDialogue* named = Named(name_space, spec.name.value); named != nullptr) {
    if (named->busy) return Lease();
    std::optional<Divergence> divergence;
    const int64_t common = CommonPrefix(named->session.tokens(), spec.prompt);
    if (named->policy != policy) {
      divergence = Divergence{0, "policy_changed"};
      named->session = engine_->NewSession(spec.policy);
      const std::lock_guard lock(mutex_);
      named->policy = policy;
    } else if (common < static_cast<int64_t>(named->session.tokens().size())) {
      divergence = Divergence{common, "history_differs"};
    }
    return Take(spec, named, divergence);
  }
  const DialogueStore::Entry stored = store_ != nullptr ? store_->Named(name_space, spec.name.value) : nullptr;
  if (stored == nullptr || OfId(stored->id) != nullptr) return std::nullopt;
  const int64_t common = CommonPrefix(*stored->tokens, spec.prompt);
  std::optional<Divergence> divergence;
  if (common < std::ssize(*stored->tokens)) divergence = Divergence{common, "history_differs"};
  if (stored->policy != policy) divergence = Divergence{0, "policy_changed"};
  HeldDialogue* dialogue = FromDisk(*stored);
  if (stored->policy != policy || common < std::min<int64_t>(kMinForkTokens, std::ssize(*stored->tokens))) {
    // Nothing of it is worth reading: its file gets what comes now.
    dialogue->session = engine_->NewSession(spec.policy);
    const std::lock_guard lock(mutex_);
    dialogue->on_disk_as.clear();
    dialogue->policy = policy;
  }
  return Take(spec, dialogue, divergence);
}

SessionPool::Match SessionPool::LongestInMemory(const JobSpec& spec, const NameSpace& name_space) const {
  const std::string& policy = spec.policy.ToString();
  Match best;
  const auto rank = [&](const HeldDialogue& d) { return std::tuple(!d.busy, d.name.value == spec.name.value, d.used); };
  for (const auto& dialogue : dialogues_) {
    if (dialogue->name_space != name_space || dialogue->policy != policy || dialogue->doomed) continue;
    const int64_t common = CommonPrefix(dialogue->session.tokens(), spec.prompt);
    if (common == 0 || common < best.common) continue;
    if (best.held != nullptr && common == best.common && rank(*dialogue) < rank(*best.held)) continue;
    best.held = dialogue.get();
    best.common = common;
  }
  if (best.held == nullptr) return best;
  best.extends = best.common == static_cast<int64_t>(best.held->session.tokens().size());
  best.in_place = !best.held->busy && MayContinue(best.held->name, spec.name) &&
                  (best.extends || OnlyTheAnswerDiffers(best.held->prompt_tokens, best.common));
  return best;
}

SessionPool::Match SessionPool::LongestOnDisk(const JobSpec& spec, const NameSpace& name_space) const {
  Match best;
  if (store_ == nullptr || Forgets(spec.policy)) return best;
  std::set<std::string_view> in_memory;
  for (const auto& dialogue : dialogues_) in_memory.insert(dialogue->id);
  const auto rank = [&](const StoredDialogue& d) { return std::tuple(d.name.value == spec.name.value, d.used_s); };
  for (const DialogueStore::Entry& entry : store_->Under(name_space, spec.policy.ToString())) {
    const int64_t common = CommonPrefix(*entry->tokens, spec.prompt);
    if (common == 0 || common < best.common || in_memory.contains(entry->id)) continue;
    if (best.stored != nullptr && common == best.common && rank(*entry) < rank(*best.stored)) continue;
    best.stored = entry;
    best.common = common;
  }
  if (best.stored == nullptr) return best;
  best.extends = best.common == std::ssize(*best.stored->tokens);
  best.in_place = MayContinue(best.stored->name, spec.name) &&
                  (best.extends || OnlyTheAnswerDiffers(best.stored->prompt_tokens, best.common));
  return best;
}

SessionPool::Lease SessionPool::Acquire(const JobSpec& spec) {
  const NameSpace name_space = Sealed(spec.name_space);
  if (spec.name.exclusive) {
    if (auto lease = AcquireNamed(spec, name_space)) return std::move(*lease);
  }
  const Match memory = LongestInMemory(spec, name_space), disk = LongestOnDisk(spec, name_space);
  const auto worth = [&](const Match& match) {
    return match.in_place || (match.common >= kMinForkTokens && !Forgets(spec.policy)) ? match.common : 0;
  };
  // Reading a dialogue from disk only to fork it must be worth it.
  const int64_t least = worth(memory) + (disk.in_place ? 1 : kMinForkTokens);
  const Match& best = worth(disk) >= least ? disk : memory;
  if (worth(best) == 0) {
    return Take(spec, NewDialogue(name_space, spec.name, spec.policy), Divergence{0, "not_held"});
  }
  std::optional<Divergence> divergence;
  if (!best.extends) divergence = Divergence{best.common, "history_differs"};
  HeldDialogue* dialogue = best.held;
  if (best.stored != nullptr) {
    dialogue = best.in_place ? FromDisk(*best.stored) : ForkFromDisk(*best.stored, spec.name);
  } else if (!best.in_place) {
    dialogue = ForkOf(*best.held, spec.name);
  }
  return Take(spec, dialogue, divergence);
}

size_t SessionPool::BytesToRead(const HeldDialogue& dialogue) const {
  if (dialogue.on_disk_as.empty()) return 0;
  const size_t blocks = (dialogue.tokens->size() + kMinForkTokens - 1) / kMinForkTokens;
  return blocks * engine_->kv_block_bytes();
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
  if (store_ == nullptr) return OnDisk();
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

std::shared_ptr<const std::vector<Token>> SessionPool::HeldTokens(const NameSpace& name_space, const SessionName& name,
                                                                  const Policy& policy,
                                                                  std::span<const Token> prompt) const {
  const NameSpace sealed = Sealed(name_space);
  std::vector<std::shared_ptr<const std::vector<Token>>> candidates;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& dialogue : dialogues_) {
      if (dialogue->name_space != sealed || dialogue->policy != policy.ToString()) continue;
      if (name.exclusive && dialogue->name.value == name.value) return dialogue->tokens;
      candidates.push_back(dialogue->tokens);
    }
  }
  if (store_ != nullptr) {
    for (const DialogueStore::Entry& entry : store_->Under(sealed, policy.ToString())) {
      if (name.exclusive && entry->name.exclusive && entry->name.value == name.value) return entry->tokens;
      candidates.push_back(entry->tokens);
    }
  }
  std::shared_ptr<const std::vector<Token>> best;
  int64_t longest = 0;
  for (auto& tokens : candidates) {
    const int64_t common = CommonPrefix(*tokens, prompt);
    if (common <= longest) continue;
    longest = common;
    best = std::move(tokens);
  }
  return best;
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

HeldDialogue* SessionPool::Insert(std::string id, Session session, const NameSpace& name_space, const SessionName& name,
                                  const std::string& policy) {
  while (size() >= options_.max_sessions) {
    const HeldDialogue* oldest = LeastRecentlyUsed();
    if (oldest == nullptr) break;  // all are busy or pinned: as many as may run at once come on top
    Unload(oldest);
  }
  auto dialogue = std::make_unique<HeldDialogue>(std::move(id), std::move(session));
  dialogue->name_space = name_space;
  dialogue->name = name;
  dialogue->policy = policy;
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
