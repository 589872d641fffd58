// What policies there are, and their knobs. A further policy is one more row here.
#include <array>
#include <charconv>
#include <initializer_list>
#include <span>
#include <sstream>
#include <type_traits>

#include "src/selection/policy_kinds.h"

namespace loopserve {
namespace {

using Method = PrefillSettings::Method;
using Eviction = EvictionSettings::Method;

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
constexpr Knob kSinks = {"sinks", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                           return SetNumber<int64_t>(text, 0, kMostTokens, false, &prefill->sinks);
                         }};
constexpr Knob kLocal = {"local", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                           return SetNumber<int64_t>(text, 1, kMostTokens, false, &prefill->local);
                         }};
constexpr Knob kLast = {"last", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                          return SetNumber<int64_t>(text, 1, kMostTokens, false, &prefill->last_rows);
                        }};
constexpr Knob kReference = {"reference", [](std::string_view text, PrefillSettings* prefill, DecodeSettings*) {
                               return SetNumber<int64_t>(text, 0, kMostTokens, false, &prefill->reference_keys);
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

constexpr Knob kDenseLayers = {"dense_layers", [](std::string_view text, PrefillSettings*, DecodeSettings* decode) {
                                 return SetNumber(text, 0, 1024, false, &decode->dense_layers);
                               }};

std::string SetWord(std::string_view text, std::string_view no, std::string_view yes, bool* target) {
  if (text == no || text == yes) {
    *target = text == yes;
    return {};
  }
  return "one of " + std::string(no) + ", " + std::string(yes);
}

constexpr Knob kKeptBudget = {.key = "budget", .set_eviction = [](std::string_view text, EvictionSettings* eviction) {
                                return SetNumber<int64_t>(text, 2, kMostTokens, false, &eviction->budget);
                              }};
constexpr Knob kWindow = {.key = "window", .set_eviction = [](std::string_view text, EvictionSettings* eviction) {
                            return SetNumber(text, 1, 1024, false, &eviction->window);
                          }};
constexpr Knob kPool = {.key = "pool", .set_eviction = [](std::string_view text, EvictionSettings* eviction) {
                          return SetNumber(text, 1, 63, false, &eviction->pool);
                        }};
constexpr Knob kBeta = {.key = "beta", .set_eviction = [](std::string_view text, EvictionSettings* eviction) {
                          return SetNumber(text, 1, 1000, false, &eviction->beta);
                        }};
constexpr Knob kSafeShare = {.key = "alpha", .set_eviction = [](std::string_view text, EvictionSettings* eviction) {
                               return SetNumber(text, 0.0, 1.0, false, &eviction->alpha);
                             }};
constexpr Knob kKeptSinks = {.key = "sinks", .set_eviction = [](std::string_view text, EvictionSettings* eviction) {
                               return SetNumber<int64_t>(text, 0, kMostTokens, false, &eviction->sinks);
                             }};
constexpr Knob kWhen = {.key = "when", .set_eviction = [](std::string_view text, EvictionSettings* eviction) {
                          return SetWord(text, "once", "every_turn", &eviction->every_turn);
                        }};
constexpr Knob kObserve = {.key = "observe", .set_eviction = [](std::string_view text, EvictionSettings* eviction) {
                             return SetWord(text, "prompt", "output", &eviction->observes_output);
                           }};

constexpr std::array<std::string_view, 2> kDenseNames = {"dense", "full"};
constexpr std::array<std::string_view, 1> kPaperNames = {"paper"};
constexpr std::array<std::string_view, 1> kLoopServeNames = {"loopserve"};
constexpr std::array<std::string_view, 1> kMInferenceNames = {"minference"};
constexpr std::array<std::string_view, 1> kFlexPrefillNames = {"flexprefill"};
constexpr std::array<std::string_view, 1> kXAttentionNames = {"xattention"};
constexpr std::array<std::string_view, 1> kAShapeNames = {"a_shape"};
constexpr std::array<std::string_view, 1> kTriShapeNames = {"tri_shape"};
constexpr std::array<std::string_view, 1> kQuestNames = {"quest"};
constexpr std::array<Knob, 7> kPaperKnobs = {kAlpha, kLineRows, kMinKeys, kSeed, kBudget, kInterval, kQueries};
constexpr std::array<Knob, 9> kLoopServeKnobs = {kAlpha,         kTileRows, kMinKeys, kSeed,        kBudget,
                                                 kDecodeMinKeys, kQueries,  kRecent,  kPerQueryHead};

constexpr std::array<Knob, 6> kMInferenceKnobs = {kColumns, kSlashes, kMinKeys, kBudget, kInterval, kQueries};
constexpr std::array<Knob, 7> kFlexPrefillKnobs = {kGamma, kTau, kMinBudget, kMinKeys, kBudget, kInterval, kQueries};
constexpr std::array<Knob, 7> kXAttentionKnobs = {kThreshold, kStride, kBlock, kMinKeys, kBudget, kInterval, kQueries};
constexpr std::array<Knob, 7> kAShapeKnobs = {kSinks, kLocal, kReference, kMinKeys, kBudget, kInterval, kQueries};
constexpr std::array<Knob, 8> kTriShapeKnobs = {kSinks,   kLocal,  kLast,     kReference,
                                                kMinKeys, kBudget, kInterval, kQueries};
constexpr std::array<Knob, 4> kQuestKnobs = {kBudget, kDecodeMinKeys, kDenseLayers, kPerQueryHead};

constexpr std::array<std::string_view, 1> kSnapKvNames = {"snapkv"};
constexpr std::array<std::string_view, 1> kPyramidKvNames = {"pyramidkv"};
constexpr std::array<std::string_view, 1> kAdaKvNames = {"adakv"};
constexpr std::array<std::string_view, 1> kH2ONames = {"h2o"};
constexpr std::array<std::string_view, 1> kStreamingNames = {"streaming"};
constexpr std::array<Knob, 5> kSnapKvKnobs = {kKeptBudget, kWindow, kPool, kWhen, kObserve};
constexpr std::array<Knob, 5> kPyramidKvKnobs = {kKeptBudget, kWindow, kPool, kBeta, kWhen};
constexpr std::array<Knob, 6> kAdaKvKnobs = {kKeptBudget, kWindow, kPool, kSafeShare, kWhen, kObserve};
constexpr std::array<Knob, 2> kH2OKnobs = {kKeptBudget, kWhen};
constexpr std::array<Knob, 3> kStreamingKnobs = {kKeptBudget, kKeptSinks, kWhen};

/// At which the floor of methods without an alpha is measured: that of `paper`.
constexpr double kFloorAlpha = 0.955;

constexpr std::array<PolicyKind, 14> kPolicies = {{
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
    {kAShapeNames,
     kAShapeKnobs,
     {.method = Method::kShape, .alpha = kFloorAlpha, .sinks = 128, .local = 3968, .reference_keys = 16384},
     {}},
    {kTriShapeNames,
     kTriShapeKnobs,
     {.method = Method::kShape,
      .alpha = kFloorAlpha,
      .sinks = 128,
      .local = 3968,
      .last_rows = 100,
      .reference_keys = 16384},
     {}},
    // One query is kept, to measure coverage by.
    {kQuestNames,
     kQuestKnobs,
     {},
     {.method = DecodeSettings::Method::kPages, .budget = 1024, .queries = 1, .dense_layers = 2}},
    {kSnapKvNames, kSnapKvKnobs, {}, {}, {.method = Eviction::kSnapKv, .budget = 1024, .window = 32, .pool = 7}},
    {kPyramidKvNames,
     kPyramidKvKnobs,
     {},
     {},
     {.method = Eviction::kPyramidKv, .budget = 1024, .window = 32, .pool = 7, .beta = 20}},
    {kAdaKvNames,
     kAdaKvKnobs,
     {},
     {},
     {.method = Eviction::kAdaKv, .budget = 1024, .window = 32, .pool = 7, .alpha = 0.2}},
    {kH2ONames, kH2OKnobs, {}, {}, {.method = Eviction::kH2O, .budget = 1024}},
    {kStreamingNames, kStreamingKnobs, {}, {}, {.method = Eviction::kStreaming, .budget = 1024, .sinks = 4}},
    {kDenseNames, {}, {}, {}, {}},
}};

}  // namespace

std::span<const PolicyKind> PolicyKinds() { return kPolicies; }

std::string Misfit(const EvictionSettings& eviction) {
  const auto above = [&](std::string_view key, int64_t value) {
    return "budget must be above " + std::string(key) + ", which is " + std::to_string(value);
  };
  if (eviction.window > 0 && eviction.budget <= eviction.window) return above("window", eviction.window);
  if (eviction.sinks > 0 && eviction.budget <= eviction.sinks) return above("sinks", eviction.sinks);
  if (eviction.pool > 0 && eviction.pool % 2 == 0) return "pool must be odd, not " + std::to_string(eviction.pool);
  return {};
}

}  // namespace loopserve
