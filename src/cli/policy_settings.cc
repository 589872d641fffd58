#include "src/cli/policy_settings.h"

#include <charconv>
#include <string_view>
#include <type_traits>

namespace loopserve {
namespace {

template <typename T>
std::string ToText(T value) {
  if constexpr (std::is_enum_v<T> || std::is_same_v<T, bool>) {
    return std::to_string(static_cast<int>(value));
  } else {
    char buffer[64];
    const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value);
    return error == std::errc() ? std::string(buffer, end) : std::string();
  }
}

class Settings {
 public:
  template <typename T>
  void Add(std::string_view name, T value) {
    // What does not differ from nothing is left out: a setting that is new one day leaves the others as they were.
    if (value == T{}) return;
    text_.append(text_.empty() ? "" : " ").append(name).append("=").append(ToText(value));
  }
  std::string text_;
};

}  // namespace

std::string SettingsOf(const Policy& policy) {
  Settings settings;
  // Bindings of all members: one that is added and forgotten here does not compile.
  const auto& [method, alpha, sample_rows, min_keys, columns, slashes, cover, tau, min_budget, stride, block, sinks,
               local, last_rows, reference_keys, seed] = policy.prefill();
  settings.Add("prefill.method", method);
  settings.Add("prefill.alpha", alpha);
  settings.Add("prefill.sample_rows", sample_rows);
  settings.Add("prefill.min_keys", min_keys);
  settings.Add("prefill.columns", columns);
  settings.Add("prefill.slashes", slashes);
  settings.Add("prefill.cover", cover);
  settings.Add("prefill.tau", tau);
  settings.Add("prefill.min_budget", min_budget);
  settings.Add("prefill.stride", stride);
  settings.Add("prefill.block", block);
  settings.Add("prefill.sinks", sinks);
  settings.Add("prefill.local", local);
  settings.Add("prefill.last_rows", last_rows);
  settings.Add("prefill.reference_keys", reference_keys);
  settings.Add("prefill.seed", seed);
  const auto& [decode_method, budget, decode_min_keys, interval, queries, recent, dense_layers, per_query_head] =
      policy.decode();
  settings.Add("decode.method", decode_method);
  settings.Add("decode.budget", budget);
  settings.Add("decode.min_keys", decode_min_keys);
  settings.Add("decode.interval", interval);
  settings.Add("decode.queries", queries);
  settings.Add("decode.recent", recent);
  settings.Add("decode.dense_layers", dense_layers);
  settings.Add("decode.per_query_head", per_query_head);
  const auto& [kept_method, kept_budget, window, pool, beta, safe_share, kept_sinks, every_turn, observes_output] =
      policy.eviction();
  settings.Add("eviction.method", kept_method);
  settings.Add("eviction.budget", kept_budget);
  settings.Add("eviction.window", window);
  settings.Add("eviction.pool", pool);
  settings.Add("eviction.beta", beta);
  settings.Add("eviction.alpha", safe_share);
  settings.Add("eviction.sinks", kept_sinks);
  settings.Add("eviction.every_turn", every_turn);
  settings.Add("eviction.observes_output", observes_output);
  return settings.text_;
}

}  // namespace loopserve
