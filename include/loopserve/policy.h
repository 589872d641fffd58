// What a dialogue computes of its attention. A policy is chosen once, when a session opens, and never changes in it.
// Thread rule: a value.
#pragma once

#include <string>
#include <string_view>

#include "loopserve/status.h"

namespace loopserve {

/// A validated policy. Written as NAME[:key=value,...], for example "dense".
class Policy {
 public:
  /// Dense attention over the whole history: exact, the reference of every other policy.
  Policy() = default;

  /// Parses and validates a policy specification. kInvalidArgument names the unknown policy, key or value and lists
  /// what there is. "full" is another name of "dense"; dense takes no keys.
  static Result<Policy> Parse(std::string_view spec);

  /// The canonical specification: Parse(ToString()) gives the same policy.
  const std::string& ToString() const { return spec_; }
  bool is_dense() const { return true; }

 private:
  std::string spec_ = "dense";
};

}  // namespace loopserve
