#include "src/kernels/antidiagonal.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <new>
#include <numbers>

#include "src/base/check.h"
#include "src/kernels/attention_item.h"
#include "src/kernels/row_scores.h"

namespace loopserve {
namespace {

using namespace attention_internal;

/// The rows of a group from place first_place on, the last row at place 0, into consecutive places of RowTile::q.
void LoadGroup(const AttentionProblem& problem, AttentionMath math, const GroupedKeys& keys, int head, int64_t group,
               int first_place, std::byte* target) {
  const int stride = keys.stride();
  const float scale = problem.scale / static_cast<float>(stride) * std::numbers::log2e_v<float>;
  const size_t row_bytes = static_cast<size_t>(problem.head_dim) * ElementBytes(math);
  for (int place = first_place; place < first_place + keys.part_keys(); ++place, target += row_bytes) {
    const int64_t row = group * stride + (stride - 1 - place) - problem.first_position;
    if (row < 0 || row >= problem.n_rows) {
      std::memset(target, 0, row_bytes);
      continue;
    }
    Kernels(math).load_query(problem.q + row * problem.q_row_stride + int64_t{head} * problem.head_dim,
                             static_cast<size_t>(problem.head_dim), scale, target);
  }
}

/// Adds (or, for the first part, writes) a step's scores to every row's weights.
void AddScores(const RowTile& tile, int64_t padded, bool is_first, int64_t first_key, float* weights, int64_t stride) {
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

}  // namespace

GroupedKeys::GroupedKeys(const KvHeadView& kv, int stride, AttentionMath math)
    : stride_(stride), part_keys_(stride), n_groups_((kv.n_keys + stride - 1) / stride) {
  LS_CHECK(stride >= 1 && stride <= kMaxGroupStride && (stride & (stride - 1)) == 0);
  while (part_keys_ * kv.head_dim > kMaxHeadDim) part_keys_ /= 2;
  const int part_dim = part_keys_ * kv.head_dim;
  const size_t part_bytes = kv.row_bytes * static_cast<size_t>(part_keys_);
  AlignedBuffer rows;
  if (!rows.Reserve(part_bytes * static_cast<size_t>(n_groups_))) throw std::bad_alloc();
  const std::byte* block = rows.data();
  KvHeadView view;
  view.type = kv.type;
  view.head_dim = part_dim;
  view.block_tokens = static_cast<int>(n_groups_);
  view.n_keys = n_groups_;
  view.row_bytes = part_bytes;
  view.blocks = &block;
  for (int first = 0; first < stride; first += part_keys_) {
    for (int64_t i = 0; i < n_groups_ * part_keys_; ++i) {
      const int64_t key = i / part_keys_ * stride + first + i % part_keys_;
      std::byte* target = rows.data() + static_cast<size_t>(i) * kv.row_bytes;
      if (key < kv.n_keys) {
        std::memcpy(target, kv.Key(key), kv.row_bytes);
      } else {
        std::memset(target, 0, kv.row_bytes);  // zero in both types
      }
    }
    // The kernel packs values too: the keys stand in for them, and nothing reads them.
    AlignedBuffer& packed = parts_.emplace_back();
    if (!packed.Reserve(PackedKvBytes(part_dim, n_groups_, math))) throw std::bad_alloc();
    PackKv(view, 0, n_groups_, math, packed.data());
  }
}

void GroupWeights(const AttentionProblem& problem, AttentionMath math, const GroupedKeys& keys, int head,
                  int64_t first_group, int n_groups, float* weights, int64_t stride, std::byte* scratch) {
  LS_CHECK(n_groups >= 1 && n_groups <= kMaxSampledRows);
  const PrefillKernels& kernels = Kernels(math);
  const ItemState state = CutScratch(problem.head_dim, scratch);
  const int part_dim = keys.part_keys() * problem.head_dim;
  const int64_t end = first_group + n_groups;
  const int64_t padded_end = PaddedKeys(end);
  LS_CHECK(end <= keys.n_groups() && stride >= padded_end);
  RowTile tile;
  tile.n_rows = n_groups;
  tile.head_dim = static_cast<size_t>(part_dim);
  tile.q = state.q;
  tile.scores = state.scores;
  const int64_t step = TileKeys(part_dim);
  for (int first_place = 0, part = 0; first_place < keys.stride(); first_place += keys.part_keys(), ++part) {
    for (int i = 0; i < n_groups; ++i) {
      LoadGroup(problem, math, keys, head, first_group + i, first_place,
                state.q + static_cast<size_t>(i * part_dim) * ElementBytes(math));
    }
    for (int64_t first = 0; first < end; first += step) {
      tile.n_keys = static_cast<int>(std::min(step, end - first));
      tile.k = keys.part(part) + static_cast<size_t>(first * part_dim) * ElementBytes(math);
      kernels.score_rows(tile);
      AddScores(tile, PaddedKeys(tile.n_keys), first_place == 0, first, weights, stride);
    }
  }
  for (int i = 0; i < n_groups; ++i) {
    float* row = weights + i * stride;
    const int64_t n_own = first_group + i + 1;
    std::fill(row + n_own, row + padded_end, -HUGE_VALF);
    const float sum =
        ExpInPlace(row, static_cast<size_t>(padded_end), LargestScore(row, static_cast<size_t>(n_own), -FLT_MAX));
    for (int64_t g = 0; g < padded_end; ++g) row[g] /= sum;
  }
}

}  // namespace loopserve
