#include "loopserve/policy.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <span>
#include <utility>
#include <vector>

namespace loopserve {
namespace {

// What there is. A further policy is one more row here.
struct PolicyKind {
  std::string_view name;                    // as ToString writes it
  std::span<const std::string_view> names;  // all that Parse takes, `name` first
  std::span<const std::string_view> keys;
};

constexpr std::array<std::string_view, 2> kDenseNames = {"dense", "full"};
constexpr std::array<PolicyKind, 1> kPolicies = {{{"dense", kDenseNames, {}}}};

struct ParsedSpec {
  std::string_view name;
  std::vector<std::pair<std::string_view, std::string_view>> values;
};

Status Invalid(std::string_view spec, const std::string& what) {
  return Status(StatusCode::kInvalidArgument, "policy '" + std::string(spec) + "': " + what);
}

std::string Join(std::span<const std::string_view> words) {
  std::string joined;
  for (const std::string_view word : words) joined.append(joined.empty() ? "" : ", ").append(word);
  return joined;
}

std::string KnownPolicies() {
  std::string known;
  for (const PolicyKind& kind : kPolicies) {
    if (!known.empty()) known += ", ";
    known += kind.name;
    if (kind.names.size() > 1) known += " (or " + Join(kind.names.subspan(1)) + ")";
  }
  return known;
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
  const auto kind = std::ranges::find_if(
      kPolicies, [&](const PolicyKind& k) { return std::ranges::find(k.names, parsed.name) != k.names.end(); });
  if (kind == kPolicies.end()) {
    return Invalid(spec, "unknown policy '" + std::string(parsed.name) + "'; there is: " + KnownPolicies());
  }
  for (const auto& [key, value] : parsed.values) {
    if (std::ranges::find(kind->keys, key) == kind->keys.end()) {
      const std::string keys = kind->keys.empty() ? "takes no keys" : "takes " + Join(kind->keys);
      return Invalid(spec, "unknown key '" + std::string(key) + "'; " + std::string(kind->name) + " " + keys);
    }
  }
  Policy policy;
  policy.spec_ = kind->name;
  return policy;
}

}  // namespace loopserve
