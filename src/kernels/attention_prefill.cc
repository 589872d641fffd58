// Prefill attention without the arithmetic: work items, tiles, masks and the scratch they live in.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <numbers>

#include "src/base/check.h"
#include "src/kernels/attention.h"
#include "src/kernels/attention_tiles.h"

namespace loopserve {
namespace {

using namespace attention_internal;

const PrefillKernels& Kernels(AttentionMath math) {
  return math == AttentionMath::kBf16 ? Bf16PrefillKernels() : F32PrefillKernels();
}

size_t ElementBytes(AttentionMath math) { return math == AttentionMath::kBf16 ? 2 : 4; }

size_t PackedKeyBytes(int head_dim, int64_t n_keys, AttentionMath math) {
  return static_cast<size_t>(PaddedKeys(n_keys)) * static_cast<size_t>(head_dim) * ElementBytes(math);
}

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

// A thread's scratch, cut up. Rows are (position, head) pairs, positions outermost.
struct ItemState {
  float* out;     // [kMaxItemRows, padded_dim]
  float* sum;     // [kMaxItemRows, kSumLanes]
  float* max;     // [kMaxItemRows]
  float* scores;  // [kTileRows, kMaxTileKeys]
  std::byte* q;   // [kMaxItemRows, head_dim]
};

size_t ScratchFloats(int head_dim) {
  return kMaxItemRows * (PaddedHeadDim(head_dim) + kSumLanes + 1) + size_t{kTileRows} * kMaxTileKeys;
}

ItemState CutScratch(int head_dim, std::byte* scratch) {
  ItemState state;
  state.out = reinterpret_cast<float*>(scratch);
  state.sum = state.out + kMaxItemRows * PaddedHeadDim(head_dim);
  state.max = state.sum + kMaxItemRows * kSumLanes;
  state.scores = state.max + kMaxItemRows;
  state.q = reinterpret_cast<std::byte*>(state.scores + size_t{kTileRows} * kMaxTileKeys);
  return state;
}

struct Item {
  const AttentionProblem* problem;
  int kv_head;
  int first_head;
  int n_heads;
  int64_t first_row;  // of the problem
  int n_rows;         // (position, head) pairs

  int64_t Position(int row) const { return problem->first_position + first_row + row / n_heads; }
  int64_t KeyBegin(int row) const {
    return problem->window > 0 ? std::max<int64_t>(0, Position(row) - problem->window + 1) : 0;
  }
  int64_t KeyEnd(int row) const { return Position(row) + 1; }
  int64_t Column(int row) const { return int64_t{first_head + row % n_heads} * problem->head_dim; }
  int64_t ProblemRow(int row) const { return first_row + row / n_heads; }
};

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

void LoadRows(const Item& item, const PrefillKernels& kernels, size_t q_row_bytes, const ItemState& state) {
  const AttentionProblem& problem = *item.problem;
  const float scale = problem.scale * std::numbers::log2e_v<float>;
  for (int row = 0; row < item.n_rows; ++row) {
    kernels.load_query(problem.q + item.ProblemRow(row) * problem.q_row_stride + item.Column(row),
                       static_cast<size_t>(problem.head_dim), scale, state.q + static_cast<size_t>(row) * q_row_bytes);
    state.max[row] = -FLT_MAX;  // finite, so that a row of -inf scores gives no infinity minus infinity
  }
  const auto n_rows = static_cast<size_t>(item.n_rows);
  std::fill_n(state.sum, n_rows * kSumLanes, 0.0f);
  std::fill_n(state.out, n_rows * PaddedHeadDim(problem.head_dim), 0.0f);
}

// Clips the tile of keys [tile_begin, tile_end) to what rows [first, first + n) attend. Returns the first
// key, at the start of a pack group, or -1 if they attend none.
int64_t ClipTile(const Item& item, int first, int64_t tile_begin, int64_t tile_end, RowTile& tile) {
  const int last = first + tile.n_rows - 1;
  const int64_t begin = std::max(tile_begin, item.KeyBegin(first) / kPackGroupKeys * kPackGroupKeys);
  const int64_t end = std::min(tile_end, item.KeyEnd(last));
  if (begin >= end) return -1;
  tile.n_keys = static_cast<int>(end - begin);
  tile.masked = item.KeyBegin(last) > begin || item.KeyEnd(first) < end;
  if (tile.masked) {
    for (int row = 0; row < tile.n_rows; ++row) {
      tile.begin[row] = static_cast<int>(std::clamp<int64_t>(item.KeyBegin(first + row) - begin, 0, tile.n_keys));
      tile.end[row] = static_cast<int>(std::clamp<int64_t>(item.KeyEnd(first + row) - begin, 0, tile.n_keys));
    }
  }
  return begin;
}

void StoreRows(const Item& item, const ItemState& state) {
  const AttentionProblem& problem = *item.problem;
  const size_t padded_dim = PaddedHeadDim(problem.head_dim);
  for (int row = 0; row < item.n_rows; ++row) {
    const float* lanes = state.sum + static_cast<size_t>(row) * kSumLanes;
    float sum = 0;
    for (int i = 0; i < kSumLanes; ++i) sum += lanes[i];
    const float inverse = 1.0f / sum;
    const float* source = state.out + static_cast<size_t>(row) * padded_dim;
    float* target = problem.out + item.ProblemRow(row) * problem.out_row_stride + item.Column(row);
    for (int i = 0; i < problem.head_dim; ++i) target[i] = source[i] * inverse;
  }
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
  Kernels(math).pack(kv, first_key, last_key, packed, packed + PackedKeyBytes(kv.head_dim, kv.n_keys, math));
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
      const int64_t first_key = ClipTile(item, row, tile_begin, tile_begin + tile_keys, tile);
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
