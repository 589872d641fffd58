// What a model attends to: the figures of every head over the new tokens of a turn, and the vertical and slash lines
// that the paper's choice (LoopServe, arXiv 2507.13681, Algorithm 1) takes for them. An observer: it changes no number
// of what the session computes, but takes time.
//
//   AttentionInspector inspector;               RunControl control;  control.inspector = &inspector;
//   session.Sync(first_turn, control);  session.Sync(first_and_second_turn, control);
//   inspector.turns[1].layers[3].heads[5].density ...
//
// Words: a row is a query, one of the turn's new tokens; a pair is a row and a key at or before it; column j is the
// pairs (p, j) of all rows p >= j, slash s the pairs (p, p - s) of all rows p >= s.
// Thread rule: values; an inspector is written by the Sync that it was given to.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "loopserve/status.h"

namespace loopserve {

/// Turns of fewer new tokens are not looked at: a sample would be a large part of them.
inline constexpr int64_t kMinInspectedRows = 64;
/// Longer turns are looked at in parts of this many rows, each a TurnAttention of its own.
inline constexpr int64_t kMaxInspectedRows = 32768;
/// The keys that count as sinks: the first ones of the dialogue. And as near: the row's own and those before it.
inline constexpr int64_t kSinkKeys = 4;
inline constexpr int64_t kNearKeys = 64;

struct InspectOptions {
  /// Share of the sampled rows' weight that the chosen lines must hold, in (0, 1].
  double alpha = 0.955;
  /// Rows whose exact attention decides, 1 to 4096: one out of each of so many equal strata of the turn. The same rows
  /// as those of the policy "paper" with the same number and seed.
  int sample_rows = 128;
  /// Rows that judge the choice, 0 to 4096: at random out of the rows that were not sampled, one of each of so many
  /// equal strata.
  int heldout_rows = 32;
  uint64_t seed = 0;
  /// Only this layer; empty: every layer without a sliding window.
  std::optional<int> layer;
  /// Draws this head of `layer` as a map.
  std::optional<int> map_head;
  /// Rows and columns of the map, at most; 1 to 4096.
  int map_cells = 512;

  /// layer_windows: of each layer of the model, 0 without a sliding window (ModelInfo::layer_windows). kInvalidArgument
  /// for a value out of its range, which the message names; kUnsupported for a layer with a sliding window.
  Status Validate(std::span<const int64_t> layer_windows, int n_heads) const;
};

struct AttentionLine {
  int32_t index = 0;  ///< of a column: the key's position; of a slash: its distance from the row
  /// Mean over the sampled rows of their weight on the line; what lies where two lines cross counts in both.
  float weight = 0;
};

/// What two choices of a head's lines of one kind have in common, of the lines that both could have taken.
struct LineOverlap {
  int64_t possible = 0;
  int64_t before = 0;
  int64_t now = 0;
  int64_t both = 0;

  bool operator==(const LineOverlap&) const = default;
  /// Whether there is anything to compare.
  bool any() const { return before + now > 0; }
  /// |A and B| / min(|A|, |B|), in [0, 1]; 0 if one of them is empty.
  double of_smaller() const;
  /// |A and B| / |A or B|, in [0, 1].
  double jaccard() const;
  /// What of_smaller would be on average if one of them were drawn at random: max(|A|, |B|) / possible.
  double by_chance() const;
};

/// One query head over the rows of a turn. Where the model's scores are not finite their weight counts as none, and a
/// sampled coverage of 0 says so.
struct HeadAttention {
  std::vector<AttentionLine> columns;  ///< chosen; ascending
  std::vector<AttentionLine> slashes;  ///< chosen; ascending
  int64_t computed_pairs = 0;          ///< on the chosen lines, crossings once
  double density = 0;                  ///< computed_pairs / causal pairs of the turn's rows
  double sampled_coverage = 0;         ///< mean weight of the sampled rows on the lines, crossings once
  /// The same of held-out rows; empty if there are none.
  std::optional<double> heldout_coverage;
  /// The same of the same rows on the lines that were chosen in the turn before; empty in the first.
  std::optional<double> coverage_by_last_lines;
  /// What is chosen again where other rows are sampled (the next seed), of the lines that the turn before could have
  /// chosen too: the yardstick of OverlapOfLines between turns. Empty in the first turn.
  std::optional<LineOverlap> column_resampled;
  std::optional<LineOverlap> slash_resampled;
  double column_share = 0;  ///< mean weight of the sampled rows on the chosen columns
  double sink_share = 0;    ///< on the first kSinkKeys keys
  double near_share = 0;    ///< on the nearest kNearKeys keys
  /// The smallest share of the sampled rows' pairs that holds alpha of each row's weight: what no choice can beat.
  double floor = 0;
};

struct LayerAttention {
  int layer = 0;
  std::vector<HeadAttention> heads;
};

/// One head's attention, pooled: map row i stands for the turn's rows [n_rows * i / map_rows, n_rows * (i + 1) /
/// map_rows), map column c for the keys [n_keys * c / map_columns, n_keys * (c + 1) / map_columns).
struct AttentionMap {
  int layer = 0;
  int head = 0;
  int64_t first_position = 0;
  int64_t n_rows = 0;
  int map_rows = 0;
  int map_columns = 0;
  /// f32 [map_rows, map_columns]: mean over the rows of their weight on the keys; the cells of a map row sum to 1.
  std::vector<float> weight;
  /// f32 [map_rows, map_columns]: the share of the cell's causal pairs that lie on the chosen lines; 0 without any.
  std::vector<float> computed;

  int64_t n_keys() const { return first_position + n_rows; }
  int64_t RowEdge(int i) const { return n_rows * i / map_rows; }
  int64_t KeyEdge(int c) const { return n_keys() * c / map_columns; }
};

struct TurnAttention {
  int64_t first_position = 0;  ///< of its first new token
  int64_t n_rows = 0;          ///< new tokens
  std::vector<LayerAttention> layers;
  std::optional<AttentionMap> map;

  int64_t n_keys() const { return first_position + n_rows; }
};

/// RunControl::inspector points to one. One inspector, one dialogue: each turn is compared with the one before.
struct AttentionInspector {
  InspectOptions options;
  std::vector<TurnAttention> turns;  ///< each Sync that was completed adds its own
};

/// Lines of the turn before and of this one (ascending), of the same kind. n_keys_before: keys of the turn before. Only
/// lines below it count: columns of keys that existed in both turns (a key keeps its position), and slashes that were
/// possible in both.
LineOverlap OverlapOfLines(std::span<const AttentionLine> before, std::span<const AttentionLine> now,
                           int64_t n_keys_before);

}  // namespace loopserve
