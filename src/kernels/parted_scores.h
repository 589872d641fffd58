// Inside the kernels that estimate: the softmax of a few rows over things that stand for several keys each (groups,
// tiles). Such a thing may be described by more elements than a packed key may have; then it is packed in parts.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

#include "src/base/check.h"
#include "src/kernels/attention_item.h"
#include "src/kernels/row_scores.h"

namespace loopserve::attention_internal {

/// n rows of dim elements that lie side by side from *block on, as the kernels' pack takes them.
inline KvHeadView RowsView(KvType type, int dim, size_t row_bytes, int64_t n, const std::byte* const* block) {
  KvHeadView view;
  view.type = type;
  view.head_dim = dim;
  view.block_tokens = static_cast<int>(n);
  view.n_keys = n;
  view.row_bytes = row_bytes;
  view.blocks = block;
  return view;
}

/// Adds (or, for the first part, writes) a step's scores to every row's weights.
inline void AddScores(const RowTile& tile, bool is_first, int64_t first_key, float* weights, int64_t stride) {
  const int64_t padded = PaddedKeys(tile.n_keys);
  for (int r = 0; r < tile.n_rows; ++r) {
    const float* scores = tile.scores + static_cast<size_t>(r) * kMaxTileKeys;
    float* target = weights + r * stride + first_key;
    if (is_first) {
      std::copy_n(scores, padded, target);
    } else {
      for (int64_t i = 0; i < padded; ++i) target[i] += scores[i];
    }
  }
}

struct PartedRows {
  int n_rows = 0;  ///< <= kTileRows
  int n_parts = 0;
  int part_dim = 0;   ///< <= kMaxHeadDim
  int64_t n_own = 0;  ///< what the last row attends; none attends more
};

/// weights[i * stride + t] = the softmax of row i over [0, n_own(i)); zero beyond, up to a multiple of 64. A row's
/// elements of a part come from load(i, part, target), what it is held against from packed(part).
template <class Load, class Packed, class OwnCount>
void PartedSoftmax(const PartedRows& rows, AttentionMath math, const Load& load, const Packed& packed,
                   const OwnCount& n_own, const ItemState& state, float* weights, int64_t stride) {
  const int64_t padded_end = PaddedKeys(rows.n_own);
  LS_CHECK(rows.n_rows >= 1 && rows.n_rows <= kTileRows && stride >= padded_end);
  RowTile tile;
  tile.n_rows = rows.n_rows;
  tile.head_dim = static_cast<size_t>(rows.part_dim);
  tile.q = state.q;
  tile.scores = state.scores;
  const size_t row_bytes = static_cast<size_t>(rows.part_dim) * ElementBytes(math);
  const int64_t step = TileKeys(rows.part_dim);
  for (int part = 0; part < rows.n_parts; ++part) {
    for (int i = 0; i < rows.n_rows; ++i) load(i, part, state.q + static_cast<size_t>(i) * row_bytes);
    for (int64_t first = 0; first < rows.n_own; first += step) {
      tile.n_keys = static_cast<int>(std::min(step, rows.n_own - first));
      tile.k = packed(part) + static_cast<size_t>(first) * row_bytes;
      Kernels(math).score_rows(tile);
      AddScores(tile, part == 0, first, weights, stride);
    }
  }
  for (int i = 0; i < rows.n_rows; ++i) {
    float* row = weights + i * stride;
    const int64_t n = n_own(i);
    std::fill(row + n, row + padded_end, -HUGE_VALF);
    const float sum =
        ExpInPlace(row, static_cast<size_t>(padded_end), LargestScore(row, static_cast<size_t>(n), -FLT_MAX));
    for (int64_t t = 0; t < padded_end; ++t) row[t] /= sum;
  }
}

}  // namespace loopserve::attention_internal
