// AttendLines: columns gathered once, as tiles; slashes side by side as tiles of their own; lone slashes by single dot
// products over the cache as it is stored.
#include <algorithm>
#include <cmath>
#include <new>
#include <numbers>

#include "src/base/check.h"
#include "src/kernels/attention_item.h"
#include "src/kernels/attention_sparse.h"
#include "src/kernels/key_list.h"
#include "src/kernels/sparse_scratch.h"

namespace loopserve {
namespace {

using namespace attention_internal;

void AttendColumns(const Item& item, AttentionMath math, const PackedLines& lines, const SparseScratch& s) {
  const auto columns = lines.columns();
  const PackedView packed(item.problem->head_dim, static_cast<int64_t>(columns.size()), math, lines.packed_columns());
  const auto step_keys = static_cast<size_t>(TileKeys(item.problem->head_dim));
  for (size_t i = 0; i < columns.size(); i += step_keys) {
    const auto part = columns.subspan(i, std::min(step_keys, columns.size() - i));
    const SparseStep step = {packed.Key(static_cast<int64_t>(i)), packed.Value(static_cast<int64_t>(i))};
    RunStep(item, math, s, step, [&](int row) {
      return static_cast<int>(std::upper_bound(part.begin(), part.end(), item.Position(row)) - part.begin());
    });
  }
}

/// Keys [begin, end) of one step for the rows of one register tile.
void AttendBandStep(const Item& item, AttentionMath math, const PackedView& packed, const PackedLines& lines,
                    const PackedLines::Band& band, int64_t begin, int64_t end, RowTile tile, int first_row) {
  int excluded[kMaxTileKeys];
  tile.n_keys = static_cast<int>(end - begin);
  tile.masked = true;
  for (int64_t t = begin; t < end; ++t) {
    if (lines.is_column(t)) excluded[tile.n_excluded++] = static_cast<int>(t - begin);
  }
  for (int r = 0; r < tile.n_rows; ++r) {
    const int64_t position = item.Position(first_row + r);
    tile.begin[r] = static_cast<int>(std::clamp<int64_t>(position - band.last - begin, 0, tile.n_keys));
    tile.end[r] = static_cast<int>(std::clamp<int64_t>(position - band.first + 1 - begin, 0, tile.n_keys));
  }
  tile.excluded = excluded;
  tile.k = packed.Key(begin);
  tile.v = packed.Value(begin);
  Kernels(math).row_tile(tile);
}

void AttendBand(const Item& item, AttentionMath math, const PackedView& packed, const PackedLines& lines,
                const PackedLines::Band& band, const SparseScratch& s) {
  const int64_t step = TileKeys(item.problem->head_dim);
  for (int first = 0; first < item.n_rows; first += kTileRows) {
    const int n_rows = std::min(kTileRows, item.n_rows - first);
    const int64_t end = item.Position(first + n_rows - 1) - band.first + 1;
    int64_t begin = std::max<int64_t>(0, item.Position(first) - band.last) / kPackGroupKeys * kPackGroupKeys;
    for (; begin < end; begin += step) {
      AttendBandStep(item, math, packed, lines, band, begin, std::min(end, begin + step),
                     TileOf(item, s, math, first, n_rows), first);
    }
  }
}

/// Adds the partial result of listed keys to a row's running sums. `offset`: what the list's scores have more.
void MergePartial(const float* partial, float offset, int head_dim, float* max, float* sum, float* out) {
  const float list_max = partial[0] - offset;
  const float new_max = std::max(*max, list_max);
  const float keep = std::exp2(*max - new_max);
  const float add = std::exp2(list_max - new_max);
  *max = new_max;
  for (int i = 0; i < kSumLanes; ++i) sum[i] *= keep;
  sum[0] += add * partial[1];
  for (int i = 0; i < head_dim; ++i) {
    out[i] = keep * out[i] + add * partial[kKeyListHeader + static_cast<size_t>(i)];
  }
}

void AttendListed(const Item& item, int row, const PackedLines& lines, int64_t n, const SparseScratch& s) {
  const AttentionProblem& problem = *item.problem;
  const float* q = problem.q + item.ProblemRow(row) * problem.q_row_stride + item.Column(row);
  AttendKeyList(problem.kv[item.kv_head], q, problem.scale, s.key_list, n, s.partial);
  float offset = 0;
  for (int i = 0; i < problem.head_dim; ++i) offset += q[i] * lines.key_center()[i];
  const auto r = static_cast<size_t>(row);
  MergePartial(s.partial, offset * problem.scale * std::numbers::log2e_v<float>, problem.head_dim, s.rows.max + r,
               s.rows.sum + r * kSumLanes, s.rows.out + r * PaddedHeadDim(problem.head_dim));
}

void AttendLoneSlashes(const Item& item, const PackedLines& lines, const SparseScratch& s) {
  for (int row = 0; row < item.n_rows; ++row) {
    const int64_t position = item.Position(row);
    int64_t n = 0;
    for (const int32_t slash : lines.lone_slashes()) {
      if (slash > position) break;
      if (lines.is_column(position - slash)) continue;
      s.key_list[n++] = static_cast<int32_t>(position - slash);
      if (n == kMaxListedKeys) {
        AttendListed(item, row, lines, n, s);
        n = 0;
      }
    }
    if (n > 0) AttendListed(item, row, lines, n, s);
  }
}

/// The row's own key, where nothing else was attended.
void AttendOwnKeys(const Item& item, const PackedLines& lines, const SparseScratch& s) {
  for (int row = 0; row < item.n_rows; ++row) {
    const float* sum = s.rows.sum + static_cast<size_t>(row) * kSumLanes;
    if (std::any_of(sum, sum + kSumLanes, [](float x) { return x != 0.0f; })) continue;
    s.key_list[0] = static_cast<int32_t>(item.Position(row));
    AttendListed(item, row, lines, 1, s);
  }
}

}  // namespace

PackedLines::PackedLines(const KvHeadView& kv, std::span<const int32_t> columns, std::span<const int32_t> slashes,
                         AttentionMath math)
    : columns_(columns.begin(), columns.end()),
      is_column_(static_cast<size_t>(kv.n_keys)),
      key_center_(static_cast<size_t>(kv.head_dim)) {
  const auto n = static_cast<int64_t>(columns.size());
  if (!packed_.Reserve(PackedKvBytes(kv.head_dim, n, math))) throw std::bad_alloc();
  if (n > 0)
    Kernels(math).pack(kv, columns_.data(), 0, n, packed_.data(),
                       packed_.data() + PackedKeyBytes(kv.head_dim, n, math));
  Kernels(math).key_center(kv, key_center_.data());
  for (const int32_t column : columns) is_column_[static_cast<size_t>(column)] = 1;
  for (size_t i = 0; i < slashes.size();) {
    size_t end = i + 1;
    while (end < slashes.size() && slashes[end] == slashes[end - 1] + 1) ++end;
    if (end - i >= kMinBandSlashes) {
      bands_.push_back({slashes[i], slashes[end - 1]});
    } else {
      lone_slashes_.insert(lone_slashes_.end(), slashes.begin() + static_cast<ptrdiff_t>(i),
                           slashes.begin() + static_cast<ptrdiff_t>(end));
    }
    i = end;
  }
}

float PackedLines::Coverage(const float* weights, int64_t position) const {
  float sum = 0;
  for (const int32_t column : columns_) {
    if (column <= position) sum += weights[column];
  }
  const auto add_slash = [&](int64_t slash) {
    if (slash <= position && !is_column(position - slash)) sum += weights[position - slash];
  };
  for (const int32_t slash : lone_slashes_) add_slash(slash);
  for (const Band& band : bands_) {
    for (int64_t slash = band.first; slash <= band.last; ++slash) add_slash(slash);
  }
  return sum;
}

void AttendLines(const AttentionProblem& problem, AttentionMath math, const std::byte* data, const RowBlock& block,
                 const PackedLines& lines, std::byte* scratch) {
  const Item item = BlockItem(problem, block.head, block.first_row, block.n_rows);
  const KvHeadView& kv = problem.kv[item.kv_head];
  const PackedView packed(problem.head_dim, kv.n_keys, math, data);
  const SparseScratch s = CutSparse(problem.head_dim, kv.n_keys, math, scratch);
  LoadRows(item, Kernels(math), packed.key_bytes(), s.rows);
  AttendColumns(item, math, lines, s);
  for (const PackedLines::Band& band : lines.bands()) AttendBand(item, math, packed, lines, band, s);
  AttendLoneSlashes(item, lines, s);
  AttendOwnKeys(item, lines, s);
  StoreRows(item, s.rows);
}

void AttendColumnsAndTiles(const AttentionProblem& problem, AttentionMath math, const std::byte* data,
                           const RowBlock& block, const PackedLines& lines, std::span<const int32_t> tiles,
                           std::byte* scratch) {
  const Item item = BlockItem(problem, block.head, block.first_row, block.n_rows);
  const KvHeadView& kv = problem.kv[item.kv_head];
  const PackedView packed(problem.head_dim, kv.n_keys, math, data);
  const SparseScratch s = CutSparse(problem.head_dim, kv.n_keys, math, scratch);
  LoadRows(item, Kernels(math), packed.key_bytes(), s.rows);
  AttendColumns(item, math, lines, s);
  const auto step_tiles = static_cast<size_t>(TileKeys(problem.head_dim) / kChoiceTileKeys);
  for (size_t i = 0; i < tiles.size(); i += step_tiles) {
    const auto part = tiles.subspan(i, std::min(step_tiles, tiles.size() - i));
    int excluded[kMaxTileKeys];
    int n_excluded = 0;
    for (size_t tile = 0; tile < part.size(); ++tile) {
      const int64_t first = int64_t{part[tile]} * kChoiceTileKeys;
      for (int64_t key = first; key < std::min(first + kChoiceTileKeys, kv.n_keys); ++key) {
        if (lines.is_column(key)) {
          excluded[n_excluded++] = static_cast<int>(static_cast<int64_t>(tile) * kChoiceTileKeys + key - first);
        }
      }
    }
    RunStep(item, math, s, GatherTiles(packed, part, s), [&](int row) { return KeysUpTo(part, item.Position(row)); },
            {excluded, static_cast<size_t>(n_excluded)});
  }
  StoreRows(item, s.rows);
}

}  // namespace loopserve
