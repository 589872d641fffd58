#include "eval/result_index.h"

#include <algorithm>
#include <set>

namespace loopserve::eval {

namespace {

/// What dialogues on the same texts have in common: the id without the position that all their questions have, as
/// `eval build` names them ("qasper-same-1-begin").
std::string TextsOf(const PlayedDialogue& played) {
  if (played.turns.empty()) return played.dialogue;
  const std::string& position = played.turns.front().position;
  const bool is_of_all = !position.empty() && std::ranges::all_of(played.turns, [&](const PlayedTurn& turn) {
    return turn.position == position;
  });
  if (!is_of_all || !played.dialogue.ends_with("-" + position)) return played.dialogue;
  return played.dialogue.substr(0, played.dialogue.size() - position.size() - 1);
}

}  // namespace

ResultIndex::ResultIndex(std::span<const PlayedDialogue> played) {
  std::map<std::string, size_t> clusters;
  std::set<std::string> known;
  for (const PlayedDialogue& one : played) {
    if (std::ranges::find(policies_, one.policy) == policies_.end()) policies_.push_back(one.policy);
    by_policy_[{one.policy, one.dialogue}] = &one;
    if (!one.error.empty() || !known.insert(one.dialogue).second) continue;
    dialogues_.push_back(one.dialogue);
    cluster_of_.push_back(clusters.emplace(TextsOf(one), clusters.size()).first->second);
  }
  n_clusters_ = clusters.size();
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
      if (x && y) body(cluster_of_[d], *a, *b, *x, *y);
    }
  }
}

std::vector<Cluster> ResultIndex::Clusters(const std::string& policy, const Filter& filter,
                                           const Figure& figure) const {
  std::vector<Cluster> clusters(n_clusters_);
  ForSharedTurns(policy, policy, filter, figure, [&](size_t cluster, const auto&, const auto&, double value, double) {
    clusters[cluster].sum += value;
    ++clusters[cluster].n;
  });
  return clusters;
}

std::vector<std::vector<double>> ResultIndex::ValuesOf(const std::string& policy, const Filter& filter,
                                                       const Figure& figure) const {
  std::vector<std::vector<double>> values(n_clusters_);
  ForSharedTurns(policy, policy, filter, figure, [&](size_t cluster, const auto&, const auto&, double value, double) {
    values[cluster].push_back(value);
  });
  return values;
}

std::vector<std::vector<double>> ResultIndex::Quotients(const std::string& policy, const std::string& other,
                                                        const Filter& filter, const Figure& figure) const {
  std::vector<std::vector<double>> quotients(n_clusters_);
  ForSharedTurns(
      policy, other, filter, figure,
      [&](size_t cluster, const PlayedDialogue& own, const PlayedDialogue& others, double above, double below) {
        if (own.threads == others.threads && above > 0 && below > 0) quotients[cluster].push_back(above / below);
      });
  return quotients;
}

Estimate ResultIndex::Difference(const std::string& policy, const std::string& other, const Filter& filter,
                                 const Figure& figure) const {
  std::vector<Cluster> differences(n_clusters_);
  ForSharedTurns(policy, other, filter, figure,
                 [&](size_t cluster, const auto&, const auto&, double own, double others) {
                   differences[cluster].sum += own - others;
                   ++differences[cluster].n;
                 });
  return EstimateMean(differences);
}

}  // namespace loopserve::eval
