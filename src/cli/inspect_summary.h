// The figures of heads (loopserve/inspect.h) put together: a layer, a turn, all turns.
// Thread rule: pure functions. The turns must outlive what refers to their heads.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "loopserve/inspect.h"

namespace loopserve {

/// A head in one turn, and the same head in the turn before (null in the first).
struct HeadInTurn {
  int layer = 0;
  int head = 0;
  const HeadAttention* now = nullptr;
  const HeadAttention* before = nullptr;
  int64_t n_keys_before = 0;

  /// Empty in the first turn.
  std::optional<LineOverlap> ColumnOverlap() const;
  std::optional<LineOverlap> SlashOverlap() const;
};

/// The heads of a turn, layer by layer. before: the turn before, or null.
std::vector<HeadInTurn> HeadsOf(const TurnAttention& turn, const TurnAttention* before);

/// Means over heads of what LineOverlap says of each; heads without a line in both turns are not counted.
struct OverlapMeans {
  double of_smaller = 0;
  double jaccard = 0;
  double by_chance = 0;
};

/// Means over heads, each of the same weight, whatever the length of its turn.
struct AttentionSummary {
  double density = 0;
  std::optional<double> density_p10;  ///< the density that a tenth of the heads stay below; empty for one head
  std::optional<double> density_p90;  ///< and that a tenth exceed
  double sampled_coverage = 0;
  std::optional<double> heldout_coverage;  ///< over the heads that have one, as the next
  std::optional<double> coverage_by_last_lines;
  double columns = 0;  ///< how many
  double slashes = 0;
  double column_share = 0;
  double sink_share = 0;
  double near_share = 0;
  double floor = 0;
  std::optional<OverlapMeans> column_overlap;  ///< with the turn before; empty in the first, as the next
  std::optional<OverlapMeans> slash_overlap;
  std::optional<OverlapMeans> column_resampled;  ///< of two samples of the same turn; empty in the first, as the next
  std::optional<OverlapMeans> slash_resampled;
};

/// Precondition: at least one head.
AttentionSummary Summarize(std::span<const HeadInTurn> heads);

}  // namespace loopserve
