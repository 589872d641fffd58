// The specification of a policy as text: NAME[:key=value,...].
#include <algorithm>
#include <cctype>
#include <utility>
#include <vector>

#include "src/selection/policy_kinds.h"

namespace loopserve {
namespace {

struct ParsedSpec {
  std::string_view name;
  std::vector<std::pair<std::string_view, std::string_view>> values;
};

Status Invalid(std::string_view spec, const std::string& what) {
  return Status(StatusCode::kInvalidArgument, "policy '" + std::string(spec) + "': " + what);
}

std::string KnownPolicies() {
  std::string known;
  for (const PolicyKind& kind : PolicyKinds()) {
    known.append(known.empty() ? "" : ", ").append(kind.name());
    for (const std::string_view other : kind.names.subspan(1)) known.append(" (or ").append(other).append(")");
  }
  return known;
}

std::string KnownKeys(const PolicyKind& kind) {
  std::string known;
  for (const Knob& knob : kind.knobs) known.append(known.empty() ? "takes " : ", ").append(knob.key);
  return known.empty() ? "takes no keys" : known;
}

// NAME[:key=value,...], by its form alone.
Result<ParsedSpec> Split(std::string_view spec) {
  if (spec.empty()) return Status(StatusCode::kInvalidArgument, "empty policy; there is: " + KnownPolicies());
  if (std::ranges::any_of(spec, [](unsigned char c) { return std::isspace(c) != 0 || std::iscntrl(c) != 0; })) {
    return Invalid(spec, "must not contain white space or control characters");
  }
  ParsedSpec parsed;
  const size_t colon = spec.find(':');
  parsed.name = spec.substr(0, colon);
  if (parsed.name.empty()) return Invalid(spec, "no name before ':'; there is: " + KnownPolicies());
  if (colon == std::string_view::npos) return parsed;

  std::string_view rest = spec.substr(colon + 1);
  while (true) {
    const size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    const size_t equals = item.find('=');
    if (equals == 0 || equals == std::string_view::npos || equals + 1 == item.size()) {
      return Invalid(spec, "expected key=value, not '" + std::string(item) + "'");
    }
    const std::string_view key = item.substr(0, equals);
    if (std::ranges::any_of(parsed.values, [&](const auto& value) { return value.first == key; })) {
      return Invalid(spec, "key '" + std::string(key) + "' is given twice");
    }
    parsed.values.emplace_back(key, item.substr(equals + 1));
    if (comma == std::string_view::npos) return parsed;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace

Result<Policy> Policy::Parse(std::string_view spec) {
  LS_ASSIGN_OR_RETURN(const ParsedSpec parsed, Split(spec));
  const std::span<const PolicyKind> kinds = PolicyKinds();
  const auto kind = std::ranges::find_if(
      kinds, [&](const PolicyKind& k) { return std::ranges::find(k.names, parsed.name) != k.names.end(); });
  if (kind == kinds.end()) {
    return Invalid(spec, "unknown policy '" + std::string(parsed.name) + "'; there is: " + KnownPolicies());
  }
  Policy policy;
  policy.spec_ = kind->name();
  policy.prefill_ = kind->prefill;
  policy.decode_ = kind->decode;
  policy.eviction_ = kind->eviction;
  char separator = ':';
  for (const Knob& knob : kind->knobs) {  // in their own order: that makes the specification canonical
    const auto given = std::ranges::find(parsed.values, knob.key, [](const auto& value) { return value.first; });
    if (given == parsed.values.end()) continue;
    const std::string allowed = knob.set_eviction != nullptr
                                    ? knob.set_eviction(given->second, &policy.eviction_)
                                    : knob.set(given->second, &policy.prefill_, &policy.decode_);
    if (!allowed.empty()) {
      return Invalid(spec,
                     std::string(knob.key) + " must be " + allowed + ", not '" + std::string(given->second) + "'");
    }
    policy.spec_.append(1, separator).append(knob.key).append("=").append(given->second);
    separator = ',';
  }
  for (const auto& [key, value] : parsed.values) {
    if (std::ranges::find(kind->knobs, key, &Knob::key) == kind->knobs.end()) {
      return Invalid(spec,
                     "unknown key '" + std::string(key) + "'; " + std::string(kind->name()) + " " + KnownKeys(*kind));
    }
  }
  if (const std::string misfit = Misfit(policy.eviction_); !misfit.empty()) return Invalid(spec, misfit);
  return policy;
}

Result<Policy> Policy::OfQuality(std::string_view name) {
  // Figures of each: docs/algorithm.md.
  if (name == "fast") return Parse("loopserve:alpha=0.92,budget=384");
  if (name == "balanced") return Parse("loopserve");
  if (name == "faithful") return Parse("loopserve:alpha=0.998,budget=4096");
  return Status(StatusCode::kInvalidArgument,
                "unknown quality '" + std::string(name) + "'; there is: fast, balanced, faithful");
}

}  // namespace loopserve
