#include "src/model/attention_map.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "src/base/aligned_buffer.h"
#include "src/kernels/attention_sparse.h"

namespace loopserve {
namespace {

/// Adds one row to its map row: weights f32 [position + 1].
void PoolRow(const float* weights, int64_t position, const LineMask& mask, const AttentionMap& map,
             std::span<double> weight, std::span<int64_t> computed, std::span<int64_t> causal) {
  for (int c = 0; c < map.map_columns; ++c) {
    const int64_t first = map.KeyEdge(c);
    const int64_t end = std::min(map.KeyEdge(c + 1), position + 1);
    if (first >= end) break;
    double sum = 0;
    for (int64_t key = first; key < end; ++key) sum += std::isfinite(weights[key]) ? weights[key] : 0.0f;
    weight[static_cast<size_t>(c)] += sum;
    computed[static_cast<size_t>(c)] += mask.Count(position, first, end);
    causal[static_cast<size_t>(c)] += end - first;
  }
}

/// Computes the rows of map row i.
void DrawRow(const AttentionProblem& problem, const std::byte* packed, const LineMask& mask, int i, float* weights,
             int64_t stride, std::byte* scratch, AttentionMap* map) {
  const auto columns = static_cast<size_t>(map->map_columns);
  std::vector<double> weight(columns);
  std::vector<int64_t> computed(columns), causal(columns);
  const int64_t first_row = map->RowEdge(i), end_row = map->RowEdge(i + 1);
  for (int64_t row = first_row; row < end_row; row += kMaxSampledRows) {
    std::array<int64_t, kMaxSampledRows> rows;
    const int64_t n = std::min<int64_t>(kMaxSampledRows, end_row - row);
    for (int64_t k = 0; k < n; ++k) rows[static_cast<size_t>(k)] = row + k;
    RowWeights(problem, AttentionMath::kF32, packed, map->head, std::span(rows).first(static_cast<size_t>(n)), weights,
               stride, scratch);
    for (int64_t k = 0; k < n; ++k) {
      PoolRow(weights + k * stride, problem.first_position + row + k, mask, *map, weight, computed, causal);
    }
  }
  for (size_t c = 0; c < columns; ++c) {
    const size_t cell = static_cast<size_t>(i) * columns + c;
    map->weight[cell] = static_cast<float>(weight[c] / static_cast<double>(end_row - first_row));
    if (causal[c] > 0) map->computed[cell] = static_cast<float>(computed[c]) / static_cast<float>(causal[c]);
  }
}

}  // namespace

LineMask MaskOf(int64_t n_keys, const HeadAttention& head) {
  LineMask mask(n_keys);
  for (const AttentionLine& line : head.columns) mask.AddColumn(line.index);
  for (const AttentionLine& line : head.slashes) mask.AddSlash(line.index);
  return mask;
}

Status DrawAttentionMap(const AttentionProblem& problem, const std::byte* packed, int layer, int head,
                        const HeadAttention& lines, int max_cells, ComputeThreads& threads, AttentionMap* map) {
  map->layer = layer;
  map->head = head;
  map->first_position = problem.first_position;
  map->n_rows = problem.n_rows;
  map->map_rows = static_cast<int>(std::min<int64_t>(max_cells, map->n_rows));
  map->map_columns = static_cast<int>(std::min<int64_t>(max_cells, map->n_keys()));
  const auto cells = static_cast<size_t>(map->map_rows) * static_cast<size_t>(map->map_columns);
  map->weight.assign(cells, 0.0f);
  map->computed.assign(cells, 0.0f);
  const LineMask mask = MaskOf(map->n_keys(), lines);
  const int64_t stride = PaddedKeys(map->n_keys());
  const size_t scratch_bytes = SparseScratchBytes(problem.head_dim, problem.kv->n_keys, AttentionMath::kF32);
  std::atomic<int> next{0};
  return threads.Parallel([&](int, int) {
    AlignedBuffer scratch;
    if (!scratch.Reserve(scratch_bytes)) throw std::bad_alloc();
    std::vector<float> weights(static_cast<size_t>(kMaxSampledRows * stride));
    for (int i; (i = next.fetch_add(1)) < map->map_rows;) {
      DrawRow(problem, packed, mask, i, weights.data(), stride, scratch.data(), map);
    }
  });
}

}  // namespace loopserve
