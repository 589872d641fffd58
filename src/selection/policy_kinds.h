// Inside selection/: what policies there are (policy.cc), for the parser of their specifications (policy_spec.cc).
// Thread rule: constants.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "loopserve/policy.h"

namespace loopserve {

/// A knob of a policy: how its text becomes a value; returns what is allowed if the text is not. One of the two is set.
struct Knob {
  std::string_view key;
  std::string (*set)(std::string_view text, PrefillSettings* prefill, DecodeSettings* decode) = nullptr;
  std::string (*set_eviction)(std::string_view text, EvictionSettings* eviction) = nullptr;
};

struct PolicyKind {
  std::span<const std::string_view> names;  ///< all that Parse takes; the first is the one that ToString writes
  std::span<const Knob> knobs;
  PrefillSettings prefill;
  DecodeSettings decode;
  EvictionSettings eviction;

  std::string_view name() const { return names.front(); }
};

std::span<const PolicyKind> PolicyKinds();

/// What does not fit together; empty if all does.
std::string Misfit(const EvictionSettings& eviction);

}  // namespace loopserve
