// In which dialogue a request goes on: the one that it names, or the one with the longest common token prefix, in
// memory or on disk.
#include <algorithm>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "src/server/session_pool.h"

namespace loopserve::server {
namespace {

/// The end of a prompt that a template writes again when the turn is history: a header, an opened thinking tag.
constexpr int64_t kRewrittenTokens = 16;

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

/// What another dialogue's turns made a policy forget must not be missing in a fork, and is in no file.
bool Forgets(const Policy& policy) { return policy.eviction().method != EvictionSettings::Method::kNone; }

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

}  // namespace loopserve::server
