#include "src/selection/minference/vertical_slash.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "src/selection/lines/line_sums.h"

namespace loopserve {
namespace {

/// The `count` heaviest lines, ascending; the first `forced` are heavier than any.
std::vector<int32_t> Heaviest(std::vector<double> weights, int64_t forced, int64_t count) {
  const auto n = static_cast<int64_t>(weights.size());
  std::fill_n(weights.begin(), std::min(forced, n), std::numeric_limits<double>::infinity());
  std::vector<int32_t> lines(weights.size());
  std::iota(lines.begin(), lines.end(), 0);
  if (count >= n) return lines;
  std::nth_element(lines.begin(), lines.begin() + count, lines.end(), [&](int32_t a, int32_t b) {
    const double x = weights[static_cast<size_t>(a)];
    const double y = weights[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  lines.resize(static_cast<size_t>(count));
  std::ranges::sort(lines);
  return lines;
}

}  // namespace

VerticalSlash ChooseVerticalSlash(const LineProblem& problem, int64_t n_columns, int64_t n_slashes) {
  std::vector<double> columns, slashes;
  SumLines(problem.rows, problem.n_keys, &columns, &slashes);
  VerticalSlash lines;
  lines.slashes = Heaviest(std::move(slashes), kForcedSlashes, std::max(n_slashes, kLeastSlashes));
  if (static_cast<int64_t>(lines.slashes.size()) < problem.n_keys) {
    lines.columns = Heaviest(std::move(columns), kForcedColumns, std::max(n_columns, kLeastColumns));
  }
  return lines;
}

void TilesOfSlashes(std::span<const int32_t> slashes, int64_t first, int64_t last, int64_t tile_keys,
                    std::vector<int32_t>* tiles) {
  tiles->clear();
  int64_t next = 0;  // the farthest slash meets the earliest keys: tiles come in ascending order
  for (size_t i = slashes.size(); i-- > 0;) {
    const int64_t last_key = last - slashes[i];
    if (last_key < 0) continue;
    for (next = std::max(next, std::max<int64_t>(0, first - slashes[i]) / tile_keys); next * tile_keys <= last_key;
         ++next) {
      tiles->push_back(static_cast<int32_t>(next));
    }
  }
}

int64_t ColumnsOutside(std::span<const int32_t> columns, std::span<const int32_t> tiles, int64_t tile_keys,
                       int64_t last) {
  int64_t outside = 0;
  size_t tile = 0;
  for (const int32_t column : columns) {
    if (column > last) break;
    while (tile < tiles.size() && (int64_t{tiles[tile]} + 1) * tile_keys <= column) ++tile;
    if (tile == tiles.size() || int64_t{tiles[tile]} * tile_keys > column) ++outside;
  }
  return outside;
}

}  // namespace loopserve
