// Inside the prefill kernels: how packed keys and values lie in memory, and what the driver (attention_prefill.cc,
// plain C++) asks of the arithmetic (attention_prefill_f32.cc on every SIMD target, attention_prefill_bf16.cc).
//
// Packed buffer of one KV head, n = keys rounded up to kPackGroupKeys:
//   keys:   f32 [n / 64][head_dim][64]          bf16 [n / 64][head_dim / 2][64][2]
//   values: f32 [n][padded_dim]                 bf16 [n / 2][padded_dim][2]
// so that a vector holds 16 neighbouring keys (or value lanes), and a pair is what vdpbf16ps multiplies and adds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/kernels/attention.h"

namespace loopserve::attention_internal {

/// Keys in one step of the online softmax: as many as leave a tile of keys and values in L2. Tiles start at multiples
/// of it for every row, so that a row's result does not depend on the rows that are computed with it. Measured at
/// head_dim 64 on Zen 4 (bf16, share of peak): 128 keys 76%, 256 80%, 512 82%.
inline constexpr int kMaxTileKeys = 512;
inline int TileKeys(int head_dim) { return head_dim <= 64 ? kMaxTileKeys : kMaxTileKeys / 2; }
/// Rows in the register tile of the products: 6 rows by 4 vectors fill 32 registers (6 by 2 where there are 16).
inline constexpr int kTileRows = 6;
/// Rows (query position times query head) of one work item: with their sums they stay in the L2 cache beside one tile
/// of keys and values, and each tile is used kMaxItemRows / kTileRows times.
inline constexpr int kMaxItemRows = 96;
/// f32 lanes of a row's running sum.
inline constexpr int kSumLanes = 16;

inline size_t PaddedHeadDim(int head_dim) { return (static_cast<size_t>(head_dim) + 15) / 16 * 16; }

/// Up to kTileRows rows against up to kMaxTileKeys keys: scores, softmax step, weighted sum of values.
struct RowTile {
  int n_rows = 0;
  size_t head_dim = 0;
  size_t padded_dim = 0;
  const std::byte* q = nullptr;  ///< rows [n_rows, head_dim] from load_query
  const std::byte* k = nullptr;  ///< packed, first group of the tile
  const std::byte* v = nullptr;  ///< packed, of the same first key
  int n_keys = 0;                ///< from that first key on; <= kMaxTileKeys
  bool masked = false;           ///< some row attends less than [0, n_keys)
  int begin[kTileRows] = {};     ///< the keys each row attends, only read if masked
  int end[kTileRows] = {};
  const int* excluded = nullptr;  ///< [n_excluded] keys of the tile that no row attends
  int n_excluded = 0;
  float* max = nullptr;     ///< [n_rows], running, in units of log2
  float* sum = nullptr;     ///< [n_rows, kSumLanes], running
  float* out = nullptr;     ///< [n_rows, padded_dim], running, not normalised
  float* scores = nullptr;  ///< scratch [kTileRows, kMaxTileKeys], f32
};

struct PrefillKernels {
  /// Keys index[first_key .. last_key) of kv (index null: those keys themselves) to places [first_key, last_key) of the
  /// packed keys and values.
  void (*pack)(const KvHeadView& kv, const int32_t* index, int64_t first_key, int64_t last_key, std::byte* keys,
               std::byte* values);
  /// One query row times `scale` into its place of RowTile::q.
  void (*load_query)(const float* source, size_t head_dim, float scale, std::byte* target);
  void (*row_tile)(const RowTile& tile);
  /// The first step of row_tile alone: q . k into tile.scores for keys [0, n_keys) and what pads their group.
  void (*score_rows)(const RowTile& tile);
  /// What pack takes out of every key of the view, f32 [head_dim].
  void (*key_center)(const KvHeadView& kv, float* center);
};

/// For the CPU at hand.
const PrefillKernels& F32PrefillKernels();
/// Only where CpuHasNativeBf16().
const PrefillKernels& Bf16PrefillKernels();

}  // namespace loopserve::attention_internal
