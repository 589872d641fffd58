// Stored results by policy and dialogue, so that the same figure of several policies can be compared dialogue by
// dialogue. Dialogues that share a text, as those that differ in where the question stands, are one cluster: what is
// hard in one is hard in the others. Thread rule: immutable after construction.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/played_dialogue.h"
#include "eval/statistics.h"

namespace loopserve::eval {

class ResultIndex {
 public:
  using Filter = std::function<bool(const PlayedTurn&)>;
  using Figure = std::function<std::optional<double>(const PlayedTurn&)>;

  /// `played` must outlive the index.
  explicit ResultIndex(std::span<const PlayedDialogue> played);

  /// In the order in which they first played.
  const std::vector<std::string>& policies() const { return policies_; }
  int64_t n_dialogues() const { return static_cast<int64_t>(dialogues_.size()); }
  /// The values of `field` that turns have, sorted; numbers by value.
  std::vector<std::string> Values(std::string PlayedTurn::*field) const;
  std::vector<int64_t> Turns() const;

  /// Of every cluster (in an order that is the same for all policies) what `figure` gives for its turns that pass.
  std::vector<Cluster> Clusters(const std::string& policy, const Filter& filter, const Figure& figure) const;
  std::vector<std::vector<double>> ValuesOf(const std::string& policy, const Filter& filter,
                                            const Figure& figure) const;
  /// `policy`'s figure divided by `other`'s, of each cluster's turns that pass and where neither is 0. Dialogues that
  /// the two played with different numbers of threads are left out: these are figures of cost.
  std::vector<std::vector<double>> Quotients(const std::string& policy, const std::string& other, const Filter& filter,
                                             const Figure& figure) const;
  /// Of `policy` less `other`, turn by turn.
  Estimate Difference(const std::string& policy, const std::string& other, const Filter& filter,
                      const Figure& figure) const;

 private:
  /// body(cluster, policy's dialogue, other's, policy's figure, other's) for the turns for which both have it.
  template <class Body>
  void ForSharedTurns(const std::string& policy, const std::string& other, const Filter& filter, const Figure& figure,
                      const Body& body) const;
  const PlayedDialogue* Find(const std::string& policy, const std::string& dialogue) const;

  std::vector<std::string> policies_, dialogues_;
  std::vector<size_t> cluster_of_;  ///< of each dialogue
  size_t n_clusters_ = 0;
  std::map<std::pair<std::string, std::string>, const PlayedDialogue*> by_policy_;
};

}  // namespace loopserve::eval
