// Sparse prefill attention: a block of rows of one query head over the keys that were chosen for it, either tiles of
// kChoiceTileKeys neighbouring keys, vertical and slash lines, or the first and the newest keys. Keys and values come
// from the packed buffers of the dense path, and the arithmetic is that of its register tiles: a chosen tile costs what
// it costs there, plus its copy.
//
// Thread rule: everything but the scratch is read-only; blocks may be computed by any threads in any order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/kernels/attention.h"
#include "src/kernels/row_scores.h"

namespace loopserve {

/// Rows of a block, at most.
inline constexpr int kMaxBlockRows = 96;
/// Rows that are sampled together, at most.
inline constexpr int kMaxSampledRows = 6;

/// Rows [first_row, first_row + n_rows) of a problem, one query head.
struct RowBlock {
  int head = 0;
  int64_t first_row = 0;
  int n_rows = 0;  ///< <= kMaxBlockRows
};

/// Tiles that cover keys [0, n_keys).
inline int64_t ChoiceTiles(int64_t n_keys) { return (n_keys + kChoiceTileKeys - 1) / kChoiceTileKeys; }

/// Scratch bytes that one thread needs for the functions below, for a cache of n_keys keys (64-byte aligned).
size_t SparseScratchBytes(int head_dim, int64_t n_keys, AttentionMath math);

/// Writes problem.out for `block`, attending only keys of `tiles` (ascending indices) at or before each row.
void AttendTiles(const AttentionProblem& problem, AttentionMath math, const std::byte* packed, const RowBlock& block,
                 std::span<const int32_t> tiles, std::byte* scratch);

/// The exact softmax weights of any rows of `head` (ascending): weights[i * stride + t] of key t in
/// [0, position]; what lies beyond, up to a multiple of 16, is zero. stride is a multiple of 64, at least the last
/// row's position + 1 rounded up to 64.
void RowWeights(const AttentionProblem& problem, AttentionMath math, const std::byte* packed, int head,
                std::span<const int64_t> rows, float* weights, int64_t stride, std::byte* scratch);

/// Slashes side by side, from this many on, are computed as tiles; fewer as single dot products.
inline constexpr int kMinBandSlashes = 16;

/// The lines of one query head, ready to be computed. Holds copies of the columns' keys and values.
class PackedLines {
 public:
  /// columns and slashes: ascending. kv as in the problem. Throws nothing but std::bad_alloc.
  PackedLines(const KvHeadView& kv, std::span<const int32_t> columns, std::span<const int32_t> slashes,
              AttentionMath math);

  struct Band {
    int32_t first;  ///< slashes [first, last]
    int32_t last;
  };
  std::span<const int32_t> columns() const { return columns_; }
  const std::byte* packed_columns() const { return packed_.data(); }
  std::span<const Band> bands() const { return bands_; }
  std::span<const int32_t> lone_slashes() const { return lone_slashes_; }
  bool is_column(int64_t key) const { return is_column_[static_cast<size_t>(key)] != 0; }
  /// The share of a row's weights (f32 [position + 1], of keys) that lies on the lines.
  float Coverage(const float* weights, int64_t position) const;
  /// What the packed keys lost, f32 [head_dim].
  const float* key_center() const { return key_center_.data(); }

 private:
  std::vector<int32_t> columns_;
  AlignedBuffer packed_;
  std::vector<Band> bands_;
  std::vector<int32_t> lone_slashes_;
  std::vector<uint8_t> is_column_;
  std::vector<float> key_center_;
};

/// Writes problem.out for `block`, attending the causal cells of the lines, cells that two lines share once. A row that
/// no line meets attends its own key.
void AttendLines(const AttentionProblem& problem, AttentionMath math, const std::byte* packed, const RowBlock& block,
                 const PackedLines& lines, std::byte* scratch);

/// Writes problem.out for `block`, attending the causal cells of the lines' columns and of `tiles` (ascending), shared
/// cells once. The lines' slashes count for nothing here. Every row must meet a column or a tile.
void AttendColumnsAndTiles(const AttentionProblem& problem, AttentionMath math, const std::byte* packed,
                           const RowBlock& block, const PackedLines& lines, std::span<const int32_t> tiles,
                           std::byte* scratch);

/// Writes problem.out for `block`, attending of each row's causal keys the first `sinks` and the newest `window` (at
/// least 1, its own among them).
void AttendSinksAndWindow(const AttentionProblem& problem, AttentionMath math, const std::byte* packed,
                          const RowBlock& block, int64_t sinks, int64_t window, std::byte* scratch);

}  // namespace loopserve
