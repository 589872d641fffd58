// Which lines MInference computes for a head (Jiang et al., arXiv 2407.02490, the vertical-slash pattern): fixed
// numbers of columns and slashes, those that hold the most weight of the turn's last rows. Pure functions.
//
// Columns and slashes are those of lines/line_choice.h: key j; the cells (p, p - s).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/selection/lines/line_choice.h"

namespace loopserve {

/// Rows whose attention decides: the last of the turn.
inline constexpr int64_t kVerticalSlashRows = 64;

/// The first keys' columns and the nearest slashes come before all others, whatever they weigh, and are counted in.
inline constexpr int64_t kForcedColumns = 30;
inline constexpr int64_t kForcedSlashes = 100;
/// Fewer lines than these are never taken.
inline constexpr int64_t kLeastColumns = 30;
inline constexpr int64_t kLeastSlashes = 50;

struct VerticalSlash {
  std::vector<int32_t> columns;  ///< ascending
  std::vector<int32_t> slashes;  ///< ascending
};

/// problem.rows: the turn's last kVerticalSlashRows rows, or all if there are fewer. Takes n_columns columns and
/// n_slashes slashes, at least the least numbers and at most as many as there are keys; among equals the lower index,
/// which is the nearer slash. As many slashes as keys are every cell: columns are then left out. Rows that are not
/// finite count as nothing.
VerticalSlash ChooseVerticalSlash(const LineProblem& problem, int64_t n_columns, int64_t n_slashes);

/// Ascending tiles of `tile_keys` neighbouring keys that the slashes (ascending) meet in rows at positions [first,
/// last]: as in the published kernel, a slash takes every key between those that it meets in the first and in the last
/// row, for all rows in between.
void TilesOfSlashes(std::span<const int32_t> slashes, int64_t first, int64_t last, int64_t tile_keys,
                    std::vector<int32_t>* tiles);

/// How many of the columns up to `last` lie in none of the tiles; both ascending.
int64_t ColumnsOutside(std::span<const int32_t> columns, std::span<const int32_t> tiles, int64_t tile_keys,
                       int64_t last);

}  // namespace loopserve
