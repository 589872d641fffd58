// A turn's figures, for people and as JSON. Thread rule: pure functions.
#pragma once

#include <optional>
#include <string>

#include "src/cli/conversation.h"
#include "src/cli/json_output.h"

namespace loopserve {

/// "4,812 prompt tokens: 4,790 new, 22 reused (extend) | TTFT 5.31 s | TPOT 12.3 ms | 87 tokens, end of text"
std::string FormatTurn(const TurnResult& turn);

/// The object in "turns" of `loopserve run --json`; docs/command_line.md says what each field means.
Json TurnToJson(const TurnResult& turn);

/// Empty with fewer than two tokens.
std::optional<double> TpotMs(const GenerationStats& generation);

const char* ToString(SyncKind kind);
const char* ToString(StopReason reason);

}  // namespace loopserve
