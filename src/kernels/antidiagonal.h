// The estimate that XAttention chooses blocks by (arXiv 2503.16428): rows and keys in groups of `stride` neighbours;
// the score of a row group on a key group is the mean of q . k along the antidiagonal of their stride x stride cells,
// so that every row, every key, every column and every slash through the cells takes part once, for 1/stride of the
// cost of all scores. Groups are of positions: group g holds positions [stride g, stride g + stride).
//
// An antidiagonal sum is one dot product of stride * head_dim elements: the keys of a group side by side against its
// rows, the last one first. It runs through the register tiles of the dense kernels.
// Thread rule: a GroupedKeys is read-only once made; row groups may be computed by any threads in any order.
#pragma once

#include <cstdint>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/kernels/attention.h"
#include "src/kernels/attention_sparse.h"

namespace loopserve {

/// Rows and keys of a group, at most; a power of two.
inline constexpr int kMaxGroupStride = 16;

/// The keys of one KV head, packed by groups. Keys after the last count as zero.
class GroupedKeys {
 public:
  /// Throws nothing but std::bad_alloc.
  GroupedKeys(const KvHeadView& kv, int stride, AttentionMath math);

  int stride() const { return stride_; }
  int64_t n_groups() const { return n_groups_; }
  /// Keys of a group that are packed side by side: a whole group may be longer than the kernels take.
  int part_keys() const { return part_keys_; }
  const std::byte* part(int index) const { return parts_[static_cast<size_t>(index)].data(); }

 private:
  int stride_;
  int part_keys_;
  int64_t n_groups_;
  std::vector<AlignedBuffer> parts_;
};

/// The softmax of up to kMaxSampledRows row groups of `head`, from first_group on, over the key groups up to their own:
/// weights[i * stride + g], f32; what lies beyond, up to a multiple of 64, is zero. Rows that the problem does not have
/// count as zero queries. stride: at least the last group + 1, rounded up to 64. scratch: SparseScratchBytes.
void GroupWeights(const AttentionProblem& problem, AttentionMath math, const GroupedKeys& keys, int head,
                  int64_t first_group, int n_groups, float* weights, int64_t stride, std::byte* scratch);

}  // namespace loopserve
