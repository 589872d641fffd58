// Inside the prefill kernels: a block of rows on its way through the tiles, dense or chosen, and the scratch it lives
// in.
#pragma once

#include <algorithm>
#include <cfloat>
#include <numbers>

#include "src/kernels/attention.h"
#include "src/kernels/attention_tiles.h"

namespace loopserve::attention_internal {

inline const PrefillKernels& Kernels(AttentionMath math) {
  return math == AttentionMath::kBf16 ? Bf16PrefillKernels() : F32PrefillKernels();
}

inline size_t ElementBytes(AttentionMath math) { return math == AttentionMath::kBf16 ? 2 : 4; }

inline size_t PackedKeyBytes(int head_dim, int64_t n_keys, AttentionMath math) {
  return static_cast<size_t>(PaddedKeys(n_keys)) * static_cast<size_t>(head_dim) * ElementBytes(math);
}

// A thread's scratch, cut up. Rows are (position, head) pairs, positions outermost.
struct ItemState {
  float* out;     // [kMaxItemRows, padded_dim]
  float* sum;     // [kMaxItemRows, kSumLanes]
  float* max;     // [kMaxItemRows]
  float* scores;  // [kTileRows, kMaxTileKeys]
  std::byte* q;   // [kMaxItemRows, head_dim]
};

inline size_t ScratchFloats(int head_dim) {
  return kMaxItemRows * (PaddedHeadDim(head_dim) + kSumLanes + 1) + size_t{kTileRows} * kMaxTileKeys;
}

inline ItemState CutScratch(int head_dim, std::byte* scratch) {
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

/// Clips the step of keys [step_begin, step_end) to what rows [first, first + tile.n_rows) attend: row r the keys
/// [key_begin(r), key_end(r)), both ascending in r. Returns the first key, at the start of a pack group, or -1 if they
/// attend none.
template <class KeyBegin, class KeyEnd>
int64_t ClipTile(int first, int64_t step_begin, int64_t step_end, const KeyBegin& key_begin, const KeyEnd& key_end,
                 RowTile& tile) {
  const int last = first + tile.n_rows - 1;
  const int64_t begin = std::max(step_begin, key_begin(first) / kPackGroupKeys * kPackGroupKeys);
  const int64_t end = std::min<int64_t>(step_end, key_end(last));
  if (begin >= end) return -1;
  tile.n_keys = static_cast<int>(end - begin);
  tile.masked = key_begin(last) > begin || key_end(first) < end;
  if (tile.masked) {
    for (int row = 0; row < tile.n_rows; ++row) {
      tile.begin[row] = static_cast<int>(std::clamp<int64_t>(key_begin(first + row) - begin, 0, tile.n_keys));
      tile.end[row] = static_cast<int>(std::clamp<int64_t>(key_end(first + row) - begin, 0, tile.n_keys));
    }
  }
  return begin;
}

inline void LoadRows(const Item& item, const PrefillKernels& kernels, size_t q_row_bytes, const ItemState& state) {
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

inline void StoreRows(const Item& item, const ItemState& state) {
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

}  // namespace loopserve::attention_internal
