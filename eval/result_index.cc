#include "eval/result_index.h"

#include <algorithm>
#include <set>

namespace loopserve::eval {

ResultIndex::ResultIndex(std::span<const PlayedDialogue> played) {
  for (const PlayedDialogue& one : played) {
    if (!one.error.empty()) ++n_failed_;
    if (std::ranges::find(policies_, one.policy) == policies_.end()) policies_.push_back(one.policy);
    if (std::ranges::find(dialogues_, one.dialogue) == dialogues_.end()) dialogues_.push_back(one.dialogue);
    by_policy_[{one.policy, one.dialogue}] = &one;
  }
}

const PlayedDialogue* ResultIndex::Find(const std::string& policy, const std::string& dialogue) const {
  const auto found = by_policy_.find({policy, dialogue});
  return found == by_policy_.end() ? nullptr : found->second;
}

std::vector<std::string> ResultIndex::Values(std::string PlayedTurn::*field) const {
  std::set<std::string> values;
  for (const auto& [key, played] : by_policy_) {
    for (const PlayedTurn& turn : played->turns) {
      if (!(turn.*field).empty()) values.insert(turn.*field);
    }
  }
  return {values.begin(), values.end()};
}

std::vector<int64_t> ResultIndex::Turns() const {
  std::set<int64_t> turns;
  for (const auto& [key, played] : by_policy_) {
    for (const PlayedTurn& turn : played->turns) turns.insert(turn.turn);
  }
  return {turns.begin(), turns.end()};
}

std::vector<Cluster> ResultIndex::Clusters(const std::string& policy, const Filter& filter,
                                           const Figure& figure) const {
  return SharedClusters(policy, policy, filter, figure).first;
}

std::pair<std::vector<Cluster>, std::vector<Cluster>> ResultIndex::SharedClusters(const std::string& policy,
                                                                                  const std::string& other,
                                                                                  const Filter& filter,
                                                                                  const Figure& figure) const {
  std::pair<std::vector<Cluster>, std::vector<Cluster>> clusters;
  for (const std::string& dialogue : dialogues_) {
    Cluster own, others;
    const PlayedDialogue* a = Find(policy, dialogue);
    const PlayedDialogue* b = Find(other, dialogue);
    const size_t n = a == nullptr || b == nullptr ? 0 : std::min(a->turns.size(), b->turns.size());
    for (size_t i = 0; i < n; ++i) {
      if (!filter(a->turns[i])) continue;
      const std::optional<double> x = figure(a->turns[i]), y = figure(b->turns[i]);
      if (!x || !y) continue;
      own.sum += *x;
      others.sum += *y;
      ++own.n;
      ++others.n;
    }
    clusters.first.push_back(own);
    clusters.second.push_back(others);
  }
  return clusters;
}

Estimate ResultIndex::Difference(const std::string& policy, const std::string& other, const Filter& filter,
                                 const Figure& figure) const {
  auto [own, others] = SharedClusters(policy, other, filter, figure);
  for (size_t i = 0; i < own.size(); ++i) own[i].sum -= others[i].sum;
  return EstimateMean(own);
}

}  // namespace loopserve::eval
