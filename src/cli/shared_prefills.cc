#include "src/cli/shared_prefills.h"

#include <algorithm>
#include <utility>

#include "bench/process_memory.h"

namespace loopserve {

void SharedPrefills::Expect(const eval::WrittenDialogue& dialogue, const std::vector<Policy>& policies) {
  groups_.clear();
  dialogue_ = dialogue.id;
  for (const Policy& policy : policies) {
    const auto same =
        std::ranges::find_if(groups_, [&](const Group& group) { return group.policies.front().SharesPrefill(policy); });
    if (same != groups_.end()) {
      same->policies.push_back(policy);
    } else {
      groups_.push_back({.policies = {policy}});
    }
  }
  std::erase_if(groups_, [](const Group& group) { return group.policies.size() < 2; });
}

Result<SharedPrefills::Opened> SharedPrefills::Open(const eval::WrittenDialogue& dialogue, const Policy& policy) {
  const auto is_policy = [&](const Policy& other) { return other.ToString() == policy.ToString(); };
  const auto group =
      std::ranges::find_if(groups_, [&](const Group& one) { return std::ranges::any_of(one.policies, is_policy); });
  if (dialogue_ != dialogue.id || group == groups_.end()) return Opened{EngineConversation(engine_, policy)};
  if (!group->reader) LS_RETURN_IF_ERROR(Read(dialogue, &*group));
  LS_ASSIGN_OR_RETURN(EngineConversation conversation, group->reader->Fork(policy));
  Opened opened{std::move(conversation), true, group->peak_rss_bytes};
  std::erase_if(group->policies, is_policy);
  if (group->policies.empty()) groups_.erase(group);
  return opened;
}

Status SharedPrefills::Read(const eval::WrittenDialogue& dialogue, Group* group) {
  bench::ResetPeakRss();
  LS_ASSIGN_OR_RETURN(Session session, engine_->NewSharedPrefill(group->policies));
  EngineConversation reader(engine_, group->policies.front(), std::move(session));
  LS_RETURN_IF_ERROR(reader.Read(FirstMessages(dialogue), control_));
  group->peak_rss_bytes = bench::PeakRssBytes();
  group->reader = std::move(reader);
  return Status::Ok();
}

std::vector<ChatMessage> FirstMessages(const eval::WrittenDialogue& dialogue) {
  std::vector<ChatMessage> messages;
  if (!dialogue.system.empty()) messages.push_back({"system", dialogue.system});
  messages.push_back({"user", dialogue.turns.front().user});
  return messages;
}

}  // namespace loopserve
