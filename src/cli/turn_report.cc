#include "src/cli/turn_report.h"

#include "src/base/format.h"

namespace loopserve {
namespace {

std::string FormatOptionalMs(std::optional<double> ms) { return ms ? FormatMilliseconds(*ms) : "-"; }

std::string ForPeople(const char* name) {
  std::string text = name;
  for (char& c : text) {
    if (c == '_') c = ' ';
  }
  return text;
}

}  // namespace

std::optional<double> TpotMs(const GenerationStats& generation) {
  return generation.output_tokens >= 2 ? std::optional(generation.tpot_ms) : std::nullopt;
}

const char* ToString(SyncKind kind) {
  switch (kind) {
    case SyncKind::kExtend:
      return "extend";
    case SyncKind::kRewind:
      return "rewind";
    case SyncKind::kRebuild:
      return "rebuild";
  }
  return "unknown";
}

const char* ToString(StopReason reason) {
  switch (reason) {
    case StopReason::kEndOfText:
      return "end_of_text";
    case StopReason::kStopString:
      return "stop_string";
    case StopReason::kMaxTokens:
      return "max_tokens";
    case StopReason::kContextFull:
      return "context_full";
    case StopReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

std::string FormatTurn(const TurnResult& turn) {
  std::string text = FormatCount(turn.sync.prompt_tokens) + " prompt tokens: " + FormatCount(turn.sync.new_tokens) +
                     " new, " + FormatCount(turn.sync.cached_tokens) + " reused (" + ToString(turn.sync.kind) + ")";
  text += " | TTFT " + FormatOptionalMs(turn.ttft_ms) + " | TPOT " + FormatOptionalMs(TpotMs(turn.generation));
  text += " | " + FormatCount(turn.generation.output_tokens) + " tokens, " +
          ForPeople(ToString(turn.generation.stop_reason));
  if (turn.sync.prefill_density && *turn.sync.prefill_density < 1) {
    text += " | prefill density " + FormatFixed(*turn.sync.prefill_density, 3);
  }
  if (turn.generation.decode_kv_fraction && *turn.generation.decode_kv_fraction < 1) {
    text += " | decode KV " + FormatFixed(*turn.generation.decode_kv_fraction, 3);
  }
  return text;
}

Json TurnToJson(const TurnResult& turn) {
  return {
      {"answer", turn.generation.text},
      {"prompt_tokens", turn.sync.prompt_tokens},
      {"cached_tokens", turn.sync.cached_tokens},
      {"new_tokens", turn.sync.new_tokens},
      {"output_tokens", turn.generation.output_tokens},
      {"ttft_ms", JsonOrNull(turn.ttft_ms)},
      {"tpot_ms", JsonOrNull(TpotMs(turn.generation))},
      {"prefill_density", JsonOrNull(turn.sync.prefill_density)},
      {"decode_kv_fraction", JsonOrNull(turn.generation.decode_kv_fraction)},
      {"sync", ToString(turn.sync.kind)},
      {"stop_reason", ToString(turn.generation.stop_reason)},
  };
}

}  // namespace loopserve
