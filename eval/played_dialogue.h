// What playing a dialogue under a policy gave, and the one list of a turn's fields by which it is stored, exported and
// documented (docs/eval_results.md). Thread rule: values.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace loopserve::eval {

/// Empty: the turn has no task, the engine does not say, or it was not measured.
struct PlayedTurn {
  int64_t turn = 1;  ///< from 1 on
  std::string dataset, position, dependency, metric;
  std::string sources;  ///< ids of the items that the question's texts come from, separated by spaces
  std::string answer;
  std::vector<std::string> references;
  std::optional<double> score;
  std::optional<double> cut_tokens;  ///< tokens that the question's texts lost
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t new_tokens = 0;
  int64_t output_tokens = 0;
  std::string stop_reason;
  std::optional<double> ttft_ms, tpot_ms;
  std::optional<double> prefill_linear_ms, prefill_attention_ms, prefill_selection_ms;
  std::optional<double> decode_linear_ms, decode_attention_ms, decode_selection_ms;
  int64_t prefill_shared = 0;  ///< 1: read once for several policies; its times are those of this one reading
  std::optional<double> prefill_density, decode_kv_fraction;
  std::optional<double> kv_bytes, peak_rss_bytes;
  std::optional<double> kl, top1_agreement, answer_nll;
  std::optional<double> reference_kl, reference_top1_agreement, reference_nll;
};

/// One dialogue under one policy.
struct PlayedDialogue {
  std::string dialogue;  ///< its id
  std::string policy;    ///< canonical
  int64_t threads = 0;
  std::string error;  ///< why it failed; then there are no turns
  std::vector<PlayedTurn> turns;
};

struct TurnField {
  using Member = std::variant<int64_t PlayedTurn::*, std::string PlayedTurn::*, std::vector<std::string> PlayedTurn::*,
                              std::optional<double> PlayedTurn::*>;
  std::string_view name;
  Member member;
  bool of_machine = false;  ///< of how it was run, as times and memory: another start gives another value
  int since = 2;            ///< the first schema that has it
};

/// All fields, in their order.
std::span<const TurnField> TurnFields();

}  // namespace loopserve::eval
