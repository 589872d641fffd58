// What `loopserve inspect` says: tables for people, and JSON.
// Thread rule: main thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "loopserve/inspect.h"
#include "src/cli/json_output.h"

namespace loopserve {

/// What was looked at.
struct InspectReport {
  AttentionInspector inspector;
  /// Computed pairs / causal pairs of each turn's prefill, as the session's policy did it.
  std::vector<std::optional<double>> prefill_density;
  std::vector<int64_t> layer_windows;
  /// The text of the token at a position, may be no valid UTF-8.
  std::function<std::string(int64_t position)> text_of;
};

/// A table of layers for each turn, or of the heads of the layer asked for; the lines of the head asked for.
std::string FormatInspectReport(const InspectReport& report);

/// Figures of every turn, layer and head; with a layer asked for, its heads' lines too. Keys that say what was looked
/// at are added by the command.
Json InspectReportToJson(const InspectReport& report);

/// A token's text in quotes, with line ends, other control characters and bytes that are no UTF-8 escaped.
std::string QuoteToken(const std::string& text);

}  // namespace loopserve
