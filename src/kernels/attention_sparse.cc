#include "src/kernels/attention_sparse.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "src/base/check.h"
#include "src/kernels/attention_item.h"
#include "src/kernels/key_list.h"
#include "src/kernels/sparse_scratch.h"

namespace loopserve {
namespace {

using namespace attention_internal;

static_assert(kMaxBlockRows == kMaxItemRows && kMaxSampledRows == kTileRows);

void LoadSampledRows(const AttentionProblem& problem, const PrefillKernels& kernels, int head,
                     std::span<const int64_t> rows, size_t row_bytes, std::byte* q) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const float* source = problem.q + rows[i] * problem.q_row_stride + int64_t{head} * problem.head_dim;
    kernels.load_query(source, static_cast<size_t>(problem.head_dim), problem.scale * std::numbers::log2e_v<float>,
                       q + i * row_bytes);
  }
}

/// Scores of the sampled rows against every key, a step at a time: body(first_key, n_keys, scores of row i, i, n),
/// where row i attends the first n of the step's keys and the rest of the step is -inf.
template <class Body>
void ForScores(const AttentionProblem& problem, AttentionMath math, const std::byte* data, int head,
               std::span<const int64_t> rows, const SparseScratch& s, const Body& body) {
  LS_CHECK(!rows.empty() && rows.size() <= kMaxSampledRows);
  const PrefillKernels& kernels = Kernels(math);
  const KvHeadView& kv = problem.kv[head / (problem.n_heads / problem.n_kv_heads)];
  const PackedView packed(problem.head_dim, kv.n_keys, math, data);
  LoadSampledRows(problem, kernels, head, rows, packed.key_bytes(), s.rows.q);
  RowTile tile;
  tile.n_rows = static_cast<int>(rows.size());
  tile.head_dim = static_cast<size_t>(problem.head_dim);
  tile.q = s.rows.q;
  tile.scores = s.rows.scores;
  const int64_t end = problem.first_position + rows.back() + 1;
  const int64_t step = TileKeys(problem.head_dim);
  for (int64_t first = 0; first < end; first += step) {
    tile.n_keys = static_cast<int>(std::min(step, end - first));
    tile.k = packed.Key(first);
    kernels.score_rows(tile);
    const int64_t padded = PaddedKeys(tile.n_keys);
    for (size_t i = 0; i < rows.size(); ++i) {
      float* scores = tile.scores + i * kMaxTileKeys;
      const int64_t n = std::clamp<int64_t>(problem.first_position + rows[i] + 1 - first, 0, tile.n_keys);
      std::fill(scores + n, scores + padded, -HUGE_VALF);
      body(first, padded, scores, i, n);
    }
  }
}

}  // namespace

size_t SparseScratchBytes(int head_dim, int64_t n_keys, AttentionMath math) {
  return SparseItemBytes(head_dim, math) + 2 * GatherBytes(head_dim, math) +
         sizeof(float) * (RoundUp64(TileWeightFloats(n_keys)) + RoundUp64(KeyListPartialFloats(head_dim)) +
                          RoundUp64(static_cast<size_t>(head_dim)) + kMaxListedKeys);
}

void AttendTiles(const AttentionProblem& problem, AttentionMath math, const std::byte* data, const RowBlock& block,
                 std::span<const int32_t> tiles, std::byte* scratch) {
  const Item item = BlockItem(problem, block.head, block.first_row, block.n_rows);
  const KvHeadView& kv = problem.kv[item.kv_head];
  const PackedView packed(problem.head_dim, kv.n_keys, math, data);
  const SparseScratch s = CutSparse(problem.head_dim, kv.n_keys, math, scratch);
  LoadRows(item, Kernels(math), packed.key_bytes(), s.rows);
  const auto step_tiles = static_cast<size_t>(TileKeys(problem.head_dim) / kChoiceTileKeys);
  for (size_t i = 0; i < tiles.size(); i += step_tiles) {
    const auto part = tiles.subspan(i, std::min(step_tiles, tiles.size() - i));
    const SparseStep step = GatherTiles(packed, part, s);
    RunStep(item, math, s, step, [&](int row) { return KeysUpTo(part, item.Position(row)); });
  }
  StoreRows(item, s.rows);
}

namespace {

/// Attends keys [key_begin(row), key_end(row)), both ascending in row, where they lie. Steps start at the same keys as
/// in dense attention, so that a row that attends everything has the same sums.
template <class KeyBegin, class KeyEnd>
void AttendRange(const Item& item, AttentionMath math, const PackedView& packed, const SparseScratch& s,
                 const KeyBegin& key_begin, const KeyEnd& key_end) {
  const PrefillKernels& kernels = Kernels(math);
  const int64_t step = TileKeys(packed.head_dim);
  const int64_t end = key_end(item.n_rows - 1);
  for (int64_t begin = key_begin(0) / step * step; begin < end; begin += step) {
    for (int first = 0; first < item.n_rows; first += kTileRows) {
      RowTile tile = TileOf(item, s, math, first, std::min(kTileRows, item.n_rows - first));
      const int64_t first_key = ClipTile(first, begin, begin + step, key_begin, key_end, tile);
      if (first_key < 0) continue;
      tile.k = packed.Key(first_key);
      tile.v = packed.Value(first_key);
      kernels.row_tile(tile);
    }
  }
}

}  // namespace

void AttendSinksAndWindow(const AttentionProblem& problem, AttentionMath math, const std::byte* data,
                          const RowBlock& block, int64_t sinks, int64_t window, std::byte* scratch) {
  LS_CHECK(sinks >= 0 && window >= 1);
  const Item item = BlockItem(problem, block.head, block.first_row, block.n_rows);
  const KvHeadView& kv = problem.kv[item.kv_head];
  const PackedView packed(problem.head_dim, kv.n_keys, math, data);
  const SparseScratch s = CutSparse(problem.head_dim, kv.n_keys, math, scratch);
  LoadRows(item, Kernels(math), packed.key_bytes(), s.rows);
  const auto window_begin = [&](int row) { return std::max<int64_t>(0, item.Position(row) + 1 - window); };
  AttendRange(
      item, math, packed, s, [](int) { return int64_t{0}; },
      [&](int row) { return std::min(sinks, window_begin(row)); });
  AttendRange(item, math, packed, s, window_begin, [&](int row) { return item.KeyEnd(row); });
  StoreRows(item, s.rows);
}

namespace {

/// Of at most kMaxSampledRows rows.
void WeightsOfTile(const AttentionProblem& problem, AttentionMath math, const std::byte* packed, int head,
                   std::span<const int64_t> rows, float* weights, int64_t stride, std::byte* scratch) {
  const KvHeadView& kv = problem.kv[head / (problem.n_heads / problem.n_kv_heads)];
  const SparseScratch s = CutSparse(problem.head_dim, kv.n_keys, math, scratch);
  const int64_t padded_end = PaddedKeys(problem.first_position + rows.back() + 1);
  LS_CHECK(stride % kPackGroupKeys == 0 && stride >= padded_end);
  float max[kTileRows];
  std::fill_n(max, kTileRows, -FLT_MAX);
  ForScores(problem, math, packed, head, rows, s,
            [&](int64_t first, int64_t padded, const float* scores, size_t i, int64_t n) {
              max[i] = LargestScore(scores, static_cast<size_t>(n), max[i]);
              std::copy_n(scores, padded, weights + static_cast<int64_t>(i) * stride + first);
            });
  for (size_t i = 0; i < rows.size(); ++i) {
    float* row = weights + static_cast<int64_t>(i) * stride;
    const float sum = ExpInPlace(row, static_cast<size_t>(padded_end), max[i]);
    for (int64_t t = 0; t < padded_end; ++t) row[t] /= sum;
  }
}

}  // namespace

void RowWeights(const AttentionProblem& problem, AttentionMath math, const std::byte* packed, int head,
                std::span<const int64_t> rows, float* weights, int64_t stride, std::byte* scratch) {
  for (size_t i = 0; i < rows.size(); i += kMaxSampledRows) {
    const auto part = rows.subspan(i, std::min<size_t>(kMaxSampledRows, rows.size() - i));
    WeightsOfTile(problem, math, packed, head, part, weights + static_cast<int64_t>(i) * stride, stride, scratch);
  }
}

}  // namespace loopserve
