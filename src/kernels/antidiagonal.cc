#include "src/kernels/antidiagonal.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numbers>

#include "src/base/check.h"
#include "src/kernels/parted_scores.h"

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
  const KvHeadView view = RowsView(kv.type, part_dim, part_bytes, n_groups_, &block);
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
  LS_CHECK(first_group + n_groups <= keys.n_groups());
  PartedRows rows;
  rows.n_rows = n_groups;
  rows.n_parts = keys.stride() / keys.part_keys();
  rows.part_dim = keys.part_keys() * problem.head_dim;
  rows.n_own = first_group + n_groups;
  PartedSoftmax(
      rows, math,
      [&](int i, int part, std::byte* target) {
        LoadGroup(problem, math, keys, head, first_group + i, part * keys.part_keys(), target);
      },
      [&](int part) { return keys.part(part); }, [&](int i) { return first_group + i + 1; },
      CutScratch(problem.head_dim, scratch), weights, stride);
}

}  // namespace loopserve
