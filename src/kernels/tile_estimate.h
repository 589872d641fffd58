// What attention a row pays to tiles of kChoiceTileKeys keys, estimated from a summary of each tile. The score of a
// tile is q . mean(keys), raised towards the largest that any key within the tile's bounds could have:
//   q . mean + kTileReach (sum over i of max(q_i max_i, q_i min_i) - q . mean),
// where max and min are those of the tile's keys, element by element. The mean alone underestimates tiles whose weight
// is one key's; the bound alone (Quest, arXiv 2406.10774) lets wide tiles win. Both are one dot product:
// (q, |q|) . (mean + kTileReach ((max + min) / 2 - mean), kTileReach (max - min) / 2), of 1/8 of what the tile's own
// scores cost.
// Thread rule: ranges of a TileSummaries may be made by any threads: all Summarize before any Pack, and all Pack before
// TileEstimate, which only reads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/kernels/attention.h"
#include "src/kernels/attention_sparse.h"

namespace loopserve {

/// How far a tile's score goes from its mean's towards its bound, 0 to 1. docs/algorithm.md has what it changes.
inline constexpr float kTileReach = 0.25f;

/// The summaries of one KV head's tiles. kv must outlive it.
class TileSummaries {
 public:
  /// Throws nothing but std::bad_alloc.
  TileSummaries(const KvHeadView& kv, AttentionMath math);

  int64_t n_tiles() const { return n_tiles_; }
  int n_parts() const { return n_parts_; }
  int part_dim() const { return part_dim_; }
  const std::byte* part(int index) const { return packed_[static_cast<size_t>(index)].data(); }

  /// Reads the keys of tiles [first, last).
  void Summarize(int64_t first, int64_t last);
  /// Packs tiles [first, last): first is a multiple of kPackGroupKeys; last too, or it is n_tiles().
  void Pack(int64_t first, int64_t last);

 private:
  KvHeadView kv_;
  AttentionMath math_;
  int64_t n_tiles_;
  int n_parts_;                      // 2, the second for |q|, where one would be longer than the kernels take
  int part_dim_;                     // elements of a part: n_parts_ * part_dim_ = 2 * head_dim
  std::vector<AlignedBuffer> rows_;  // [n_parts_], f16 [n_tiles_, part_dim_]
  std::vector<AlignedBuffer> packed_;
};

/// The softmax over tiles of `rows` of `head` (ascending), added up: mass[t] = sum over the rows of what the tile is
/// estimated to weigh, f32 [ChoiceTiles(last row's position + 1)], overwritten. scratch: SparseScratchBytes.
void TileEstimate(const AttentionProblem& problem, AttentionMath math, const TileSummaries& tiles, int head,
                  std::span<const int64_t> rows, float* mass, std::byte* scratch);

}  // namespace loopserve
