// Prefill attention without the arithmetic: work items, tiles, masks and the scratch they live in.
#include <algorithm>

#include "src/base/check.h"
#include "src/kernels/attention.h"
#include "src/kernels/attention_item.h"

namespace loopserve {
namespace {

using namespace attention_internal;

// An item is a block of positions of one KV head: all its query heads (or an even share of them, if there are very
// many) at each position, so that its keys and values are read once for all. Up to kMaxItemRows rows.
struct ItemGrid {
  int heads_per_item = 0;
  int head_splits = 0;  // items side by side that share a KV head
  int64_t positions_per_item = 0;
  int64_t position_blocks = 0;
  int64_t items_per_block = 0;  // n_kv_heads * head_splits
};

ItemGrid MakeGrid(const AttentionProblem& problem) {
  constexpr int kMaxItemHeads = 24;
  constexpr int64_t kWantedItems = 16;  // enough for a few threads to share out evenly
  constexpr int64_t kFewRows = 24;      // below this the products wait for keys from the L3 cache
  ItemGrid grid;
  const int group = problem.n_heads / problem.n_kv_heads;
  grid.head_splits = (group + kMaxItemHeads - 1) / kMaxItemHeads;
  grid.heads_per_item = (group + grid.head_splits - 1) / grid.head_splits;
  grid.items_per_block = int64_t{problem.n_kv_heads} * grid.head_splits;
  // As many positions as fit, preferring a count that fills whole register tiles.
  int64_t positions = kMaxItemRows / grid.heads_per_item;
  for (int64_t p = positions; p > positions * 3 / 4; --p) {
    if (p * grid.heads_per_item % kTileRows == 0) {
      positions = p;
      break;
    }
  }
  while (positions > 1 && positions * grid.heads_per_item > kFewRows &&
         (problem.n_rows + positions - 1) / positions * grid.items_per_block < kWantedItems) {
    positions = (positions + 1) / 2;
  }
  grid.positions_per_item = positions;
  grid.position_blocks = (problem.n_rows + positions - 1) / positions;
  return grid;
}

Item MakeItem(const AttentionProblem& problem, int64_t index) {
  const ItemGrid grid = MakeGrid(problem);
  const int group = problem.n_heads / problem.n_kv_heads;
  const int64_t block = grid.position_blocks - 1 - index / grid.items_per_block;  // the longest rows first
  const auto column = static_cast<int>(index % grid.items_per_block);
  const int split = column % grid.head_splits;
  Item item;
  item.problem = &problem;
  item.kv_head = column / grid.head_splits;
  item.first_head = item.kv_head * group + split * grid.heads_per_item;
  item.n_heads = std::min(grid.heads_per_item, group - split * grid.heads_per_item);
  item.first_row = block * grid.positions_per_item;
  const int64_t positions = std::min(grid.positions_per_item, problem.n_rows - item.first_row);
  item.n_rows = static_cast<int>(positions) * item.n_heads;
  return item;
}

}  // namespace

size_t PackedKvBytes(int head_dim, int64_t n_keys, AttentionMath math) {
  return PackedKeyBytes(head_dim, n_keys, math) +
         static_cast<size_t>(PaddedKeys(n_keys)) * PaddedHeadDim(head_dim) * ElementBytes(math);
}

void PackKv(const KvHeadView& kv, int64_t first_key, int64_t last_key, AttentionMath math, std::byte* packed) {
  LS_CHECK(first_key % kPackGroupKeys == 0 && last_key <= kv.n_keys);
  LS_CHECK(last_key % kPackGroupKeys == 0 || last_key == kv.n_keys);
  LS_CHECK(kv.head_dim % 8 == 0 && kv.head_dim <= kMaxHeadDim);
  if (first_key >= last_key) return;
  Kernels(math).pack(kv, nullptr, first_key, last_key, packed, packed + PackedKeyBytes(kv.head_dim, kv.n_keys, math));
}

size_t PrefillScratchBytes(int head_dim, AttentionMath math) {
  return ScratchFloats(head_dim) * sizeof(float) +
         size_t{kMaxItemRows} * static_cast<size_t>(head_dim) * ElementBytes(math);
}

int64_t PrefillItemCount(const AttentionProblem& problem) {
  const ItemGrid grid = MakeGrid(problem);
  return grid.position_blocks * grid.items_per_block;
}

void PrefillAttentionItem(const AttentionProblem& problem, AttentionMath math, const std::byte* const* packed,
                          int64_t item_index, std::byte* scratch) {
  LS_CHECK(problem.head_dim % 8 == 0 && problem.head_dim <= kMaxHeadDim);
  const PrefillKernels& kernels = Kernels(math);
  const Item item = MakeItem(problem, item_index);
  const ItemState state = CutScratch(problem.head_dim, scratch);
  const auto head_dim = static_cast<size_t>(problem.head_dim);
  const size_t padded_dim = PaddedHeadDim(problem.head_dim);
  const size_t row_bytes = head_dim * ElementBytes(math);
  const size_t value_bytes = padded_dim * ElementBytes(math);
  const std::byte* keys = packed[item.kv_head];
  const std::byte* values = keys + PackedKeyBytes(problem.head_dim, problem.kv[item.kv_head].n_keys, math);
  LoadRows(item, kernels, row_bytes, state);

  const int64_t end = item.KeyEnd(item.n_rows - 1);
  const int64_t tile_keys = TileKeys(problem.head_dim);
  for (int64_t tile_begin = item.KeyBegin(0) / tile_keys * tile_keys; tile_begin < end; tile_begin += tile_keys) {
    for (int row = 0; row < item.n_rows; row += kTileRows) {
      RowTile tile;
      tile.n_rows = std::min(kTileRows, item.n_rows - row);
      tile.head_dim = head_dim;
      tile.padded_dim = padded_dim;
      const int64_t first_key = ClipTile(
          row, tile_begin, tile_begin + tile_keys, [&](int r) { return item.KeyBegin(r); },
          [&](int r) { return item.KeyEnd(r); }, tile);
      if (first_key < 0) continue;
      const auto row_index = static_cast<size_t>(row);
      tile.q = state.q + row_index * row_bytes;
      tile.k = keys + static_cast<size_t>(first_key) * row_bytes;
      tile.v = values + static_cast<size_t>(first_key) * value_bytes;
      tile.max = state.max + row_index;
      tile.sum = state.sum + row_index * kSumLanes;
      tile.out = state.out + row_index * padded_dim;
      tile.scores = state.scores;
      kernels.row_tile(tile);
    }
  }
  StoreRows(item, state);
}

}  // namespace loopserve
