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

template <class Body>
void ResultIndex::ForSharedTurns(const std::string& policy, const std::string& other, const Filter& filter,
                                 const Figure& figure, const Body& body) const {
  for (size_t d = 0; d < dialogues_.size(); ++d) {
    const PlayedDialogue* a = Find(policy, dialogues_[d]);
    const PlayedDialogue* b = Find(other, dialogues_[d]);
    const size_t n = a == nullptr || b == nullptr ? 0 : std::min(a->turns.size(), b->turns.size());
    for (size_t i = 0; i < n; ++i) {
      if (!filter(a->turns[i])) continue;
      const std::optional<double> x = figure(a->turns[i]), y = figure(b->turns[i]);
      if (x && y) body(d, *x, *y);
    }
  }
}

std::vector<Cluster> ResultIndex::Clusters(const std::string& policy, const Filter& filter,
                                           const Figure& figure) const {
  std::vector<Cluster> clusters(dialogues_.size());
  ForSharedTurns(policy, policy, filter, figure, [&](size_t dialogue, double value, double) {
    clusters[dialogue].sum += value;
    ++clusters[dialogue].n;
  });
  return clusters;
}

std::vector<std::vector<double>> ResultIndex::ValuesOf(const std::string& policy, const Filter& filter,
                                                       const Figure& figure) const {
  std::vector<std::vector<double>> values(dialogues_.size());
  ForSharedTurns(policy, policy, filter, figure,
                 [&](size_t dialogue, double value, double) { values[dialogue].push_back(value); });
  return values;
}

std::vector<std::vector<double>> ResultIndex::Quotients(const std::string& policy, const std::string& other,
                                                        const Filter& filter, const Figure& figure) const {
  std::vector<std::vector<double>> quotients(dialogues_.size());
  ForSharedTurns(policy, other, filter, figure, [&](size_t dialogue, double above, double below) {
    if (above > 0 && below > 0) quotients[dialogue].push_back(above / below);
  });
  return quotients;
}

Estimate ResultIndex::Difference(const std::string& policy, const std::string& other, const Filter& filter,
                                 const Figure& figure) const {
  std::vector<Cluster> differences(dialogues_.size());
  ForSharedTurns(policy, other, filter, figure, [&](size_t dialogue, double own, double others) {
    differences[dialogue].sum += own - others;
    ++differences[dialogue].n;
  });
  return EstimateMean(differences);
}

}  // namespace loopserve::eval
