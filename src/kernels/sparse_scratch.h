// Inside the sparse prefill kernels: the scratch, and the one loop that runs a step of keys for a block of rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "hwy/cache_control.h"
#include "src/base/check.h"
#include "src/kernels/attention_item.h"
#include "src/kernels/key_list.h"
#include "src/kernels/row_scores.h"

namespace loopserve::attention_internal {

inline constexpr int64_t kTilesPerGroup = kPackGroupKeys / kChoiceTileKeys;

inline size_t RoundUp64(size_t n) { return (n + 63) / 64 * 64; }

/// Keys that are attended as one list, at most.
inline constexpr int64_t kMaxListedKeys = 4096;

/// A thread's scratch: the rows on their way, the gathered keys and values of one step, and the weights of estimated
/// tiles.
struct SparseScratch {
  ItemState rows;
  std::byte* keys;  // packed, kMaxTileKeys keys
  std::byte* values;
  float* tile_weights;  // [kTileRows, tiles rounded up to 64]
  float* partial;       // KeyListPartialFloats
  int32_t* key_list;    // [kMaxListedKeys]
  float* query;         // f32 [head_dim]
};

inline size_t SparseItemBytes(int head_dim, AttentionMath math) {
  return RoundUp64(PrefillScratchBytes(head_dim, math));
}
inline size_t GatherBytes(int head_dim, AttentionMath math) {
  return size_t{kMaxTileKeys} * PaddedHeadDim(head_dim) * ElementBytes(math);
}
inline size_t TileWeightFloats(int64_t n_keys) {
  return size_t{kTileRows} * static_cast<size_t>(PaddedKeys((n_keys + kChoiceTileKeys - 1) / kChoiceTileKeys));
}

inline SparseScratch CutSparse(int head_dim, int64_t n_keys, AttentionMath math, std::byte* scratch) {
  SparseScratch s;
  s.rows = CutScratch(head_dim, scratch);
  s.keys = scratch + SparseItemBytes(head_dim, math);
  s.values = s.keys + GatherBytes(head_dim, math);
  s.tile_weights = reinterpret_cast<float*>(s.values + GatherBytes(head_dim, math));
  s.partial = s.tile_weights + RoundUp64(TileWeightFloats(n_keys));
  s.query = s.partial + RoundUp64(KeyListPartialFloats(head_dim));
  s.key_list = reinterpret_cast<int32_t*>(s.query + RoundUp64(static_cast<size_t>(head_dim)));
  return s;
}

inline Item BlockItem(const AttentionProblem& problem, int head, int64_t first_row, int n_rows) {
  LS_CHECK(problem.window == 0 && n_rows >= 1 && n_rows <= kMaxItemRows);
  Item item;
  item.problem = &problem;
  item.kv_head = head / (problem.n_heads / problem.n_kv_heads);
  item.first_head = head;
  item.n_heads = 1;
  item.first_row = first_row;
  item.n_rows = n_rows;
  return item;
}

/// What a packed buffer looks like.
struct PackedView {
  int head_dim;
  AttentionMath math;
  const std::byte* keys;
  const std::byte* values;

  PackedView(int head_dim_in, int64_t n_keys, AttentionMath math_in, const std::byte* data)
      : head_dim(head_dim_in), math(math_in), keys(data), values(data + PackedKeyBytes(head_dim_in, n_keys, math_in)) {}

  size_t key_bytes() const { return static_cast<size_t>(head_dim) * ElementBytes(math); }
  size_t value_bytes() const { return PaddedHeadDim(head_dim) * ElementBytes(math); }
  const std::byte* Key(int64_t t) const { return keys + static_cast<size_t>(t) * key_bytes(); }  // t % 64 == 0
  const std::byte* Value(int64_t t) const { return values + static_cast<size_t>(t) * value_bytes(); }
};

/// Keys and values of one step, in place or gathered.
struct SparseStep {
  const std::byte* keys;
  const std::byte* values;
};

// A group is [steps][64 keys] of 4-byte elements (an f32, or a pair of bf16), a tile 16 neighbouring columns of it.
inline constexpr size_t kGroupRowBytes = kPackGroupKeys * 4;
inline constexpr size_t kTileRowBytes = kChoiceTileKeys * 4;
inline const std::byte* KeysOfTile(const PackedView& from, int64_t tile) {
  return from.Key(tile / kTilesPerGroup * kPackGroupKeys) + static_cast<size_t>(tile % kTilesPerGroup) * kTileRowBytes;
}

/// Copies tile `source` into place `target` of a packed buffer.
inline void CopyTile(const PackedView& from, int64_t source, int64_t target, std::byte* keys, std::byte* values) {
  const size_t steps = from.key_bytes() / 4;
  const std::byte* s = KeysOfTile(from, source);
  std::byte* t = keys + static_cast<size_t>(target / kTilesPerGroup * kPackGroupKeys) * from.key_bytes() +
                 static_cast<size_t>(target % kTilesPerGroup) * kTileRowBytes;
  for (size_t k = 0; k < steps; ++k, s += kGroupRowBytes, t += kGroupRowBytes) std::memcpy(t, s, kTileRowBytes);
  const size_t bytes = kChoiceTileKeys * from.value_bytes();
  std::memcpy(values + static_cast<size_t>(target) * bytes, from.Value(source * kChoiceTileKeys), bytes);
}

/// Asks for a tile that is copied soon: chosen tiles lie far apart, where no cache expects them. Measured for a block
/// of 96 rows over a quarter of the tiles, head_dim 64, bf16: 3 % of the time at 3,000 keys, 5 % at 10,000, 8 % at
/// 30,000.
inline void PrefetchTile(const PackedView& from, int64_t tile) {
  const std::byte* keys = KeysOfTile(from, tile);
  for (size_t k = 0; k < from.key_bytes() / 4; ++k) hwy::Prefetch(keys + k * kGroupRowBytes);
  const std::byte* values = from.Value(tile * kChoiceTileKeys);
  for (size_t k = 0; k < kChoiceTileKeys * from.value_bytes(); k += 64) hwy::Prefetch(values + k);
}

/// The keys and values of ascending tiles, at most a step's: where they lie if they are neighbours, else copied.
inline SparseStep GatherTiles(const PackedView& packed, std::span<const int32_t> tiles, const SparseScratch& s) {
  const int64_t first = tiles.front();
  const bool in_place = first % kTilesPerGroup == 0 && tiles.back() - first + 1 == static_cast<int64_t>(tiles.size());
  if (in_place) return {packed.Key(first * kChoiceTileKeys), packed.Value(first * kChoiceTileKeys)};
  constexpr size_t kAhead = 2;
  for (size_t i = 0; i < tiles.size(); ++i) {
    if (i + kAhead < tiles.size()) PrefetchTile(packed, tiles[i + kAhead]);
    CopyTile(packed, tiles[i], static_cast<int64_t>(i), s.keys, s.values);
  }
  return {s.keys, s.values};
}

/// How many of the keys of ascending `tiles` lie at or before `position`.
inline int KeysUpTo(std::span<const int32_t> tiles, int64_t position) {
  const auto whole = std::upper_bound(tiles.begin(), tiles.end(), (position + 1) / kChoiceTileKeys - 1);
  auto n = static_cast<int64_t>(whole - tiles.begin()) * kChoiceTileKeys;
  if (whole != tiles.end() && int64_t{*whole} * kChoiceTileKeys <= position) {
    n += position + 1 - int64_t{*whole} * kChoiceTileKeys;
  }
  return static_cast<int>(n);
}

inline RowTile TileOf(const Item& item, const SparseScratch& s, AttentionMath math, int first, int n_rows) {
  const auto dim = static_cast<size_t>(item.problem->head_dim);
  const size_t padded = PaddedHeadDim(item.problem->head_dim);
  const auto row = static_cast<size_t>(first);
  RowTile tile;
  tile.n_rows = n_rows;
  tile.head_dim = dim;
  tile.padded_dim = padded;
  tile.q = s.rows.q + row * dim * ElementBytes(math);
  tile.max = s.rows.max + row;
  tile.sum = s.rows.sum + row * kSumLanes;
  tile.out = s.rows.out + row * padded;
  tile.scores = s.rows.scores;
  return tile;
}

/// Runs one step's keys for all rows of the item; key_end(row) says how many of them a row attends (ascending in row),
/// but for those that are excluded.
template <class KeyEnd>
void RunStep(const Item& item, AttentionMath math, const SparseScratch& s, const SparseStep& step,
             const KeyEnd& key_end, std::span<const int> excluded = {}) {
  const PrefillKernels& kernels = Kernels(math);
  for (int first = 0; first < item.n_rows; first += kTileRows) {
    RowTile tile = TileOf(item, s, math, first, std::min(kTileRows, item.n_rows - first));
    for (int r = 0; r < tile.n_rows; ++r) tile.end[r] = key_end(first + r);
    tile.n_keys = tile.end[tile.n_rows - 1];
    if (tile.n_keys == 0) continue;
    tile.masked = tile.end[0] < tile.n_keys;
    tile.k = step.keys;
    tile.v = step.values;
    tile.excluded = excluded.data();
    tile.n_excluded = static_cast<int>(excluded.size());
    kernels.row_tile(tile);
  }
}

}  // namespace loopserve::attention_internal
