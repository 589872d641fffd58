#include "eval/result_index.h"

#include <algorithm>
#include <numeric>
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

/// All that would make it one of a cluster: what it shares with dialogues of other positions, and the items that its
/// texts come from.
std::vector<std::string> KeysOf(const PlayedDialogue& played) {
  std::vector<std::string> keys = {TextsOf(played)};
  for (const PlayedTurn& turn : played.turns) {
    for (size_t begin = 0; begin < turn.sources.size();) {
      const size_t end = std::min(turn.sources.find(' ', begin), turn.sources.size());
      // "ID#2" is the second question on an item.
      const std::string item = turn.sources.substr(begin, std::min(turn.sources.find('#', begin), end) - begin);
      if (!item.empty()) keys.push_back(turn.dataset + "\n" + item);
      begin = end + 1;
    }
  }
  return keys;
}

/// Numbers from 0 on of what hangs together through any number of shared keys.
std::vector<size_t> NumberClusters(const std::vector<std::vector<std::string>>& keys) {
  std::vector<size_t> parent(keys.size());
  std::iota(parent.begin(), parent.end(), size_t{0});
  const auto root = [&](size_t i) {
    while (parent[i] != i) i = parent[i];
    return i;
  };
  std::map<std::string, size_t> first_with;
  for (size_t i = 0; i < keys.size(); ++i) {
    for (const std::string& key : keys[i]) parent[root(i)] = root(first_with.emplace(key, i).first->second);
  }
  std::map<size_t, size_t> numbers;  // of roots
  std::vector<size_t> clusters;
  for (size_t i = 0; i < keys.size(); ++i) clusters.push_back(numbers.emplace(root(i), numbers.size()).first->second);
  return clusters;
}

}  // namespace

ResultIndex::ResultIndex(std::span<const PlayedDialogue> played) {
  std::set<std::string> known;
  std::vector<std::vector<std::string>> keys;
  for (const PlayedDialogue& one : played) {
    if (std::ranges::find(policies_, one.policy) == policies_.end()) policies_.push_back(one.policy);
    by_policy_[{one.policy, one.dialogue}] = &one;
    if (!one.error.empty() || !known.insert(one.dialogue).second) continue;
    dialogues_.push_back(one.dialogue);
    keys.push_back(KeysOf(one));
  }
  cluster_of_ = NumberClusters(keys);
  for (const size_t cluster : cluster_of_) n_clusters_ = std::max(n_clusters_, cluster + 1);
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
