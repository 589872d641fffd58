#include "loopserve/policy.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <initializer_list>
#include <span>
#include <sstream>
#include <utility>
#include <vector>

namespace loopserve {
namespace {

using Method = PrefillSettings::Method;

// A knob of a policy: how its text becomes a value. Returns what is allowed if the text is not.
struct Knob {
  std::string_view key;
  std::string (*set)(std::string_view text, PrefillSettings* prefill, DecodeSettings* decode);
};

// What there is. A further policy is one more row here.
struct PolicyKind {
  std::span<const std::string_view> names;  // all that Parse takes; the first is the one that ToString writes
  std::span<const Knob> knobs;
  PrefillSettings prefill;
  DecodeSettings decode;

  std::string_view name() const { return names.front(); }
};

template <class T>
std::string SetNumber(std::string_view text, T low, T high, bool open_low, T* target) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // Written so that NaN is refused.
  const bool in_range = (open_low ? value > low : value >= low) && value <= high;
  if (error == std::errc() && end == text.data() + text.size() && in_range) {
    *target = value;
    return {};
  }
  std::ostringstream allowed;
  allowed << (std::is_integral_v<T> ? "a whole number " : "a number ") << (open_low ? "above " : "from ") << low
          << " to " << high;
  return allowed.str();
}

std::string SetOneOf(std::string_view text, std::initializer_list<int> choices, int* target) {
  std::string allowed;
  for (const int choice : choices) {
    if (text == std::to_string(choice)) {
      *target = choice;
      return {};
    }
    allowed.append(allowed.empty() ? "one of " : ", ").append(std::to_string(choice));
  }
  return allowed;
}

constexpr int64_t kMostTokens = int64_t{1} << 31;

constexpr Knob kAlpha = {"alpha", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                           return SetNumber(text, 0.0, 1.0, true, &prefill->alpha);
                         }};
constexpr Knob kSeed = {"seed", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                          return SetNumber<uint64_t>(text, 0, UINT64_MAX, false, &prefill->seed);
                        }};
constexpr Knob kMinKeys = {"min_keys", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                             return SetNumber<int64_t>(text, 0, kMostTokens, false, &prefill->min_keys);
                           }};
constexpr Knob kLineRows = {"rows", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                              return SetNumber(text, 1, 4096, false, &prefill->sample_rows);
                            }};
constexpr Knob kTileRows = {"rows", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                              return SetNumber(text, 1, 96, false, &prefill->sample_rows);
                            }};
constexpr Knob kColumns = {"columns", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                             return SetNumber<int64_t>(text, 30, kMostTokens, false, &prefill->columns);
                           }};
constexpr Knob kSlashes = {"slashes", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                             return SetNumber<int64_t>(text, 50, kMostTokens, false, &prefill->slashes);
                           }};
constexpr Knob kGamma = {"gamma", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                           return SetNumber(text, 0.0, 1.0, true, &prefill->cover);
                         }};
constexpr Knob kThreshold = {"threshold", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                               return SetNumber(text, 0.0, 1.0, true, &prefill->cover);
                             }};
constexpr Knob kTau = {"tau", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                         return SetNumber(text, 0.0, 1.0, false, &prefill->tau);
                       }};
constexpr Knob kMinBudget = {"min_budget", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                               return SetNumber<int64_t>(text, 1, kMostTokens, false, &prefill->min_budget);
                             }};
constexpr Knob kStride = {"stride", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                            return SetOneOf(text, {4, 8, 16}, &prefill->stride);
                          }};
constexpr Knob kBlock = {"block", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                           return SetOneOf(text, {64, 128}, &prefill->block);
                         }};
constexpr Knob kBudget = {"budget", [](std::string_view text, PrefillSettings*, DecodeSettings* decode) {
                            return SetNumber<int64_t>(text, 0, kMostTokens, false, &decode->budget);
                          }};
constexpr Knob kDecodeMinKeys = {"decode_min_keys",
                                 [](std::string_view text, PrefillSettings*, DecodeSettings* decode) {
                                   return SetNumber<int64_t>(text, 0, kMostTokens, false, &decode->min_keys);
                                 }};
constexpr Knob kInterval = {"interval", [](std::string_view text, PrefillSettings*, DecodeSettings* decode) {
                              return SetNumber(text, 1, 4096, false, &decode->interval);
                            }};
constexpr Knob kQueries = {"queries", [](std::string_view text, PrefillSettings*, DecodeSettings* decode) {
                             return SetNumber(text, 1, 64, false, &decode->queries);
                           }};

constexpr Knob kRecent = {"recent", [](std::string_view text, PrefillSettings*, DecodeSettings* decode) {
                            return SetNumber<int64_t>(text, 1, kMostTokens, false, &decode->recent);
                          }};
constexpr Knob kPerQueryHead = {"per_query_head", [](std::string_view text, PrefillSettings*, DecodeSettings* decode) {
                                  int value = 0;
                                  std::string allowed = SetOneOf(text, {0, 1}, &value);
                                  decode->per_query_head = value == 1;
                                  return allowed;
                                }};

constexpr std::array<std::string_view, 2> kDenseNames = {"dense", "full"};
constexpr std::array<std::string_view, 1> kPaperNames = {"paper"};
constexpr std::array<std::string_view, 1> kLoopServeNames = {"loopserve"};
constexpr std::array<std::string_view, 1> kMInferenceNames = {"minference"};
constexpr std::array<std::string_view, 1> kFlexPrefillNames = {"flexprefill"};
constexpr std::array<std::string_view, 1> kXAttentionNames = {"xattention"};
constexpr std::array<Knob, 7> kPaperKnobs = {kAlpha, kLineRows, kMinKeys, kSeed, kBudget, kInterval, kQueries};
constexpr std::array<Knob, 9> kLoopServeKnobs = {kAlpha,         kTileRows, kMinKeys, kSeed,        kBudget,
                                                 kDecodeMinKeys, kQueries,  kRecent,  kPerQueryHead};

constexpr std::array<Knob, 6> kMInferenceKnobs = {kColumns, kSlashes, kMinKeys, kBudget, kInterval, kQueries};
constexpr std::array<Knob, 7> kFlexPrefillKnobs = {kGamma, kTau, kMinBudget, kMinKeys, kBudget, kInterval, kQueries};
constexpr std::array<Knob, 7> kXAttentionKnobs = {kThreshold, kStride, kBlock, kMinKeys, kBudget, kInterval, kQueries};

/// At which the floor of methods without an alpha is measured: that of `paper`.
constexpr double kFloorAlpha = 0.955;

constexpr std::array<PolicyKind, 6> kPolicies = {{
    {kLoopServeNames,
     kLoopServeKnobs,
     {.method = Method::kTiles, .alpha = 0.96, .sample_rows = 24, .min_keys = 2048, .seed = 0},
     {.method = DecodeSettings::Method::kCodedKeys, .budget = 768, .min_keys = 4096, .queries = 16, .recent = 64}},
    {kPaperNames,
     kPaperKnobs,
     {.method = Method::kLines, .alpha = 0.955, .sample_rows = 128, .min_keys = 0, .seed = 0},
     {.budget = 1024, .interval = 16, .queries = 16}},
    {kMInferenceNames,
     kMInferenceKnobs,
     {.method = Method::kMInference, .alpha = kFloorAlpha, .columns = 1000, .slashes = 6096},
     {}},
    {kFlexPrefillNames,
     kFlexPrefillKnobs,
     {.method = Method::kFlexPrefill, .alpha = kFloorAlpha, .cover = 0.9, .tau = 0.1, .min_budget = 1024},
     {}},
    {kXAttentionNames,
     kXAttentionKnobs,
     {.method = Method::kXAttention, .alpha = kFloorAlpha, .cover = 0.9, .stride = 16, .block = 128},
     {}},
    {kDenseNames, {}, {}, {}},
}};

struct ParsedSpec {
  std::string_view name;
  std::vector<std::pair<std::string_view, std::string_view>> values;
};

Status Invalid(std::string_view spec, const std::string& what) {
  return Status(StatusCode::kInvalidArgument, "policy '" + std::string(spec) + "': " + what);
}

std::string KnownPolicies() {
  std::string known;
  for (const PolicyKind& kind : kPolicies) {
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
  const auto kind = std::ranges::find_if(
      kPolicies, [&](const PolicyKind& k) { return std::ranges::find(k.names, parsed.name) != k.names.end(); });
  if (kind == kPolicies.end()) {
    return Invalid(spec, "unknown policy '" + std::string(parsed.name) + "'; there is: " + KnownPolicies());
  }
  Policy policy;
  policy.spec_ = kind->name();
  policy.prefill_ = kind->prefill;
  policy.decode_ = kind->decode;
  char separator = ':';
  for (const Knob& knob : kind->knobs) {  // in their own order: that makes the specification canonical
    const auto given = std::ranges::find(parsed.values, knob.key, [](const auto& value) { return value.first; });
    if (given == parsed.values.end()) continue;
    const std::string allowed = knob.set(given->second, &policy.prefill_, &policy.decode_);
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
