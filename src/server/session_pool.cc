#include "src/server/session_pool.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

#include "src/base/check.h"
#include "src/base/log.h"

namespace loopserve::server {
namespace {

/// The end of a prompt that a template writes again when the turn is history: a header, an opened thinking tag.
constexpr int64_t kRewrittenTokens = 16;

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
bool OnlyTheAnswerDiffers(const HeldDialogue& dialogue, int64_t common) {
  const int64_t rewritten = std::min(kRewrittenTokens, dialogue.prompt_tokens / 8);
  return dialogue.prompt_tokens > 0 && common >= dialogue.prompt_tokens - rewritten;
}

bool MayContinue(const HeldDialogue& dialogue, const SessionName& name) {
  if (!dialogue.name.exclusive) return true;
  return name.exclusive && dialogue.name.value == name.value;
}

}  // namespace

SessionPool::Lease SessionPool::Acquire(const JobSpec& spec) {
  const std::string& policy = spec.policy.ToString();
  const std::span<const Token> prompt = spec.prompt;
  Lease lease;
  const auto take = [&](HeldDialogue* dialogue) {
    const std::lock_guard lock(mutex_);
    dialogue->busy = true;
    if (!spec.name.value.empty()) dialogue->name = spec.name;
    Touch(dialogue);
    lease.dialogue = dialogue;
  };
  if (spec.name.exclusive) {
    if (HeldDialogue* named = Named(spec.name_space, spec.name.value); named != nullptr) {
      if (named->busy) return {};
      const int64_t common = CommonPrefix(named->session.tokens(), prompt);
      if (named->policy != policy) {
        lease.divergence = Divergence{0, "policy_changed"};
        named->session = engine_->NewSession(spec.policy);
        const std::lock_guard lock(mutex_);
        named->policy = policy;
      } else if (common < static_cast<int64_t>(named->session.tokens().size())) {
        lease.divergence = Divergence{common, "history_differs"};
      }
      take(named);
      return lease;
    }
  }
  HeldDialogue* best = nullptr;
  int64_t longest = 0;
  const auto rank = [&](const HeldDialogue& d) { return std::tuple(!d.busy, d.name.value == spec.name.value, d.used); };
  for (const auto& dialogue : dialogues_) {
    if (dialogue->name_space != spec.name_space || dialogue->policy != policy || dialogue->doomed) continue;
    const int64_t common = CommonPrefix(dialogue->session.tokens(), prompt);
    if (common == 0 || common < longest) continue;
    if (best != nullptr && common == longest && rank(*dialogue) < rank(*best)) continue;
    best = dialogue.get();
    longest = common;
  }
  if (best != nullptr) {
    const bool extends = longest == static_cast<int64_t>(best->session.tokens().size());
    if (!extends) lease.divergence = Divergence{longest, "history_differs"};
    if (!best->busy && MayContinue(*best, spec.name) && (extends || OnlyTheAnswerDiffers(*best, longest))) {
      take(best);
      return lease;
    }
    // What another dialogue's turns made a policy forget must not be missing in this one.
    const bool forgets = spec.policy.eviction().method != EvictionSettings::Method::kNone;
    if (longest >= kMinForkTokens && !forgets) {
      take(ForkOf(*best, spec.name));
      return lease;
    }
  }
  lease.divergence = Divergence{0, "not_held"};
  take(NewDialogue(spec.name_space, spec.name, spec.policy));
  return lease;
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
  if (drop) Drop(dialogue);
}

bool SessionPool::MakeRoom(size_t bytes) {
  const auto fits = [&] {
    return options_.kv_budget_bytes == 0 || engine_->kv_used_bytes() + bytes <= options_.kv_budget_bytes;
  };
  while (!fits()) {
    const HeldDialogue* oldest = LeastRecentlyUsed();
    if (oldest == nullptr) return false;
    ++n_dropped_;
    Drop(oldest);
  }
  return true;
}

std::shared_ptr<const std::vector<Token>> SessionPool::HeldTokens(const NameSpace& name_space, const SessionName& name,
                                                                  const Policy& policy,
                                                                  std::span<const Token> prompt) const {
  std::vector<std::shared_ptr<const std::vector<Token>>> candidates;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& dialogue : dialogues_) {
      if (dialogue->name_space != name_space || dialogue->policy != policy.ToString()) continue;
      if (name.exclusive && dialogue->name.value == name.value) return dialogue->tokens;
      candidates.push_back(dialogue->tokens);
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

std::vector<SessionInfo> SessionPool::List(const std::string& tenant) const {
  const std::lock_guard lock(mutex_);
  std::vector<SessionInfo> list;
  for (const auto& d : dialogues_) {
    if (d->name_space.tenant != tenant || d->doomed) continue;
    list.push_back({d->id, d->name.value, d->policy, static_cast<int64_t>(d->tokens->size()), d->turns, d->kv_bytes,
                    d->exclusive_kv_bytes, d->created_s, d->used_s, d->busy, d->pinned});
  }
  return list;
}

Status SessionPool::Delete(const std::string& tenant, const std::string& id) {
  HeldDialogue* dialogue = Find(tenant, id);
  if (dialogue == nullptr) return Status(StatusCode::kNotFound, "there is no session '" + id + "'");
  if (!dialogue->busy) {
    Drop(dialogue);
    return Status::Ok();
  }
  const std::lock_guard lock(mutex_);
  dialogue->doomed = true;
  dialogue->name = {};  // a new dialogue may have the name
  return Status::Ok();
}

Status SessionPool::SetPinned(const std::string& tenant, const std::string& id, bool pinned) {
  HeldDialogue* dialogue = Find(tenant, id);
  if (dialogue == nullptr) return Status(StatusCode::kNotFound, "there is no session '" + id + "'");
  const std::lock_guard lock(mutex_);
  dialogue->pinned = pinned;
  return Status::Ok();
}

Result<std::string> SessionPool::Fork(const std::string& tenant, const std::string& id, const std::string& name) {
  const HeldDialogue* source = Find(tenant, id);
  if (source == nullptr) return Status(StatusCode::kNotFound, "there is no session '" + id + "'");
  if (!name.empty() && Named(source->name_space, name) != nullptr) {
    return Status(StatusCode::kInvalidArgument, "there is a session '" + name + "' already");
  }
  HeldDialogue* fork = ForkOf(*source, {name, !name.empty()});
  fork->busy = true;
  std::string fork_id = fork->id;
  Release(fork, 0);
  return fork_id;
}

size_t SessionPool::size() const {
  const std::lock_guard lock(mutex_);
  return dialogues_.size();
}

HeldDialogue* SessionPool::NewDialogue(const NameSpace& name_space, const SessionName& name, const Policy& policy) {
  return Insert(engine_->NewSession(policy), name_space, name, policy.ToString());
}

HeldDialogue* SessionPool::ForkOf(const HeldDialogue& source, const SessionName& name) {
  HeldDialogue* fork = Insert(source.session.Fork(), source.name_space, name, source.policy);
  const std::lock_guard lock(mutex_);
  fork->prompt_tokens = source.prompt_tokens;
  fork->turns = source.turns;
  return fork;
}

HeldDialogue* SessionPool::Insert(Session session, const NameSpace& name_space, const SessionName& name,
                                  const std::string& policy) {
  while (size() >= options_.max_sessions) {
    const HeldDialogue* oldest = LeastRecentlyUsed();
    if (oldest == nullptr) break;  // all are busy or pinned: as many as may run at once come on top
    ++n_dropped_;
    Drop(oldest);
  }
  auto dialogue = std::make_unique<HeldDialogue>(RandomId(), std::move(session));
  dialogue->name_space = name_space;
  dialogue->name = name;
  dialogue->policy = policy;
  dialogue->created_s = SecondsSinceEpoch();
  const std::lock_guard lock(mutex_);
  Touch(dialogue.get());
  return dialogues_.emplace_back(std::move(dialogue)).get();
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

HeldDialogue* SessionPool::Find(const std::string& tenant, const std::string& id) const {
  for (const auto& d : dialogues_) {
    const bool called = d->id == id || (d->name.exclusive && d->name.value == id && d->name_space.salt.empty());
    if (called && d->name_space.tenant == tenant && !d->doomed) return d.get();
  }
  return nullptr;
}

HeldDialogue* SessionPool::LeastRecentlyUsed() const {
  HeldDialogue* oldest = nullptr;
  for (const auto& d : dialogues_) {
    if (!d->busy && !d->pinned && (oldest == nullptr || d->used < oldest->used)) oldest = d.get();
  }
  return oldest;
}

void SessionPool::Touch(HeldDialogue* dialogue) {
  dialogue->used = ++uses_;
  dialogue->used_s = SecondsSinceEpoch();
}

}  // namespace loopserve::server
