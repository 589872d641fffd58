#include "src/kernels/tile_estimate.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <numbers>

#include "src/base/check.h"
#include "src/kernels/parted_scores.h"
#include "src/kernels/sparse_scratch.h"

namespace loopserve {
namespace {

using namespace attention_internal;

/// The summary of keys [first, last), f32 [2 * head_dim].
void SummarizeKeys(const KvHeadView& kv, int64_t first, int64_t last, float* __restrict summary) {
  const int dim = kv.head_dim;
  float key[kMaxHeadDim], low[kMaxHeadDim], high[kMaxHeadDim], sum[kMaxHeadDim];
  LoadKvRow(kv.type, kv.Key(first), dim, sum);
  std::copy_n(sum, dim, low);
  std::copy_n(sum, dim, high);
  for (int64_t t = first + 1; t < last; ++t) {
    LoadKvRow(kv.type, kv.Key(t), dim, key);
    for (int i = 0; i < dim; ++i) {
      sum[i] += key[i];  // a NaN stays here, so that the tile's scores show it
      low[i] = std::min(low[i], key[i]);
      high[i] = std::max(high[i], key[i]);
    }
  }
  const float share = (1 - kTileReach) / static_cast<float>(last - first);
  for (int i = 0; i < dim; ++i) {
    summary[i] = share * sum[i] + kTileReach / 2 * (high[i] + low[i]);
    summary[dim + i] = kTileReach / 2 * (high[i] - low[i]);
  }
}

/// Elements [first, first + n) of (q, |q|) of one row.
void LoadPart(const AttentionProblem& problem, const PrefillKernels& kernels, AttentionMath math, int head, int64_t row,
              int part, int part_dim, std::byte* target) {
  const float* q = problem.q + row * problem.q_row_stride + int64_t{head} * problem.head_dim;
  const float scale = problem.scale * std::numbers::log2e_v<float>;
  const auto dim = static_cast<size_t>(problem.head_dim);
  const bool has_both = part_dim > problem.head_dim;
  if (part == 0) kernels.load_query(q, dim, scale, target);
  if (!has_both && part == 0) return;
  float magnitude[kMaxHeadDim];
  for (size_t i = 0; i < dim; ++i) magnitude[i] = std::abs(q[i]);
  kernels.load_query(magnitude, dim, scale, has_both ? target + dim * ElementBytes(math) : target);
}

}  // namespace

TileSummaries::TileSummaries(const KvHeadView& kv, AttentionMath math)
    : kv_(kv),
      math_(math),
      n_tiles_(ChoiceTiles(kv.n_keys)),
      n_parts_(2 * kv.head_dim <= kMaxHeadDim ? 1 : 2),
      part_dim_(2 * kv.head_dim / n_parts_),
      rows_(static_cast<size_t>(n_parts_)),
      packed_(static_cast<size_t>(n_parts_)) {
  LS_CHECK(kv.head_dim <= kMaxHeadDim);
  for (AlignedBuffer& rows : rows_) {
    if (!rows.Reserve(KvRowBytes(KvType::kF16, part_dim_) * static_cast<size_t>(n_tiles_))) throw std::bad_alloc();
  }
  for (AlignedBuffer& packed : packed_) {
    if (!packed.Reserve(PackedKvBytes(part_dim_, n_tiles_, math))) throw std::bad_alloc();
  }
}

void TileSummaries::Summarize(int64_t first, int64_t last) {
  const size_t row_bytes = KvRowBytes(KvType::kF16, part_dim_);
  float summary[2 * kMaxHeadDim];
  for (int64_t t = first; t < last; ++t) {
    SummarizeKeys(kv_, t * kChoiceTileKeys, std::min(kv_.n_keys, (t + 1) * kChoiceTileKeys), summary);
    for (int part = 0; part < n_parts_; ++part) {
      StoreKvRow(KvType::kF16, summary + part * part_dim_, part_dim_,
                 rows_[static_cast<size_t>(part)].data() + static_cast<size_t>(t) * row_bytes);
    }
  }
}

void TileSummaries::Pack(int64_t first, int64_t last) {
  for (size_t part = 0; part < rows_.size(); ++part) {
    const std::byte* block = rows_[part].data();
    // The kernel packs values too: the summaries stand in for them, and nothing reads them.
    PackKv(RowsView(KvType::kF16, part_dim_, KvRowBytes(KvType::kF16, part_dim_), n_tiles_, &block), first, last, math_,
           packed_[part].data());
  }
}

void TileEstimate(const AttentionProblem& problem, AttentionMath math, const TileSummaries& tiles, int head,
                  std::span<const int64_t> rows, float* mass, std::byte* scratch) {
  LS_CHECK(!rows.empty());
  const KvHeadView& kv = problem.kv[head / (problem.n_heads / problem.n_kv_heads)];
  const SparseScratch s = CutSparse(problem.head_dim, kv.n_keys, math, scratch);
  const auto own = [&](int64_t row) { return (problem.first_position + row) / kChoiceTileKeys + 1; };
  const int64_t n_tiles = own(rows.back());
  const int64_t stride = PaddedKeys(n_tiles);
  std::fill_n(mass, n_tiles, 0.0f);
  for (size_t first = 0; first < rows.size(); first += kTileRows) {
    const auto part_rows = rows.subspan(first, std::min<size_t>(kTileRows, rows.size() - first));
    PartedRows parted;
    parted.n_rows = static_cast<int>(part_rows.size());
    parted.n_parts = tiles.n_parts();
    parted.part_dim = tiles.part_dim();
    parted.n_own = own(part_rows.back());
    PartedSoftmax(
        parted, math,
        [&](int i, int part, std::byte* target) {
          LoadPart(problem, Kernels(math), math, head, part_rows[static_cast<size_t>(i)], part, tiles.part_dim(),
                   target);
        },
        [&](int part) { return tiles.part(part); }, [&](int i) { return own(part_rows[static_cast<size_t>(i)]); },
        s.rows, s.tile_weights, stride);
    for (int64_t i = 0; i < parted.n_rows; ++i) {
      for (int64_t t = 0; t < parted.n_own; ++t) mass[t] += s.tile_weights[i * stride + t];
    }
  }
}

}  // namespace loopserve
