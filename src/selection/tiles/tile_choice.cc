#include "src/selection/tiles/tile_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace loopserve {
namespace {

void TakeAll(int64_t n_tiles, std::vector<int32_t>* tiles) {
  tiles->resize(static_cast<size_t>(n_tiles));
  std::iota(tiles->begin(), tiles->end(), 0);
}

/// Adds what the block before suggests for tiles [1, first_own_tile), scaled to `hint` times the weight that the sample
/// has there.
void MixHint(const TileProblem& problem, double hint, std::span<float> estimate) {
  const auto before = [&](int64_t t) {
    return t >= 0 && t < static_cast<int64_t>(problem.mass_before.size()) ? problem.mass_before[static_cast<size_t>(t)]
                                                                          : 0.0f;
  };
  const auto hinted = [&](int64_t t) { return before(t) + before(t - problem.shift_tiles); };
  double sampled = 0, suggested = 0;
  for (int64_t t = 1; t < problem.first_own_tile; ++t) {
    sampled += estimate[static_cast<size_t>(t)];
    suggested += hinted(t);
  }
  if (!(suggested > 0)) return;
  const auto factor = static_cast<float>(hint * sampled / suggested);
  for (int64_t t = 1; t < problem.first_own_tile; ++t) {
    float& x = estimate[static_cast<size_t>(t)];
    x = (x + factor * hinted(t)) / static_cast<float>(1 + hint);
  }
}

}  // namespace

void ChooseTiles(const TileProblem& problem, double alpha, double hint, std::vector<float>* scratch,
                 std::vector<int32_t>* tiles) {
  const auto n_tiles = static_cast<int64_t>(problem.mass.size());
  tiles->clear();
  scratch->assign(problem.mass.begin(), problem.mass.end());
  const double total = std::accumulate(scratch->begin(), scratch->end(), 0.0);
  if (alpha >= 1 || !std::isfinite(total) || problem.first_own_tile <= 1) return TakeAll(n_tiles, tiles);
  if (hint > 0 && !problem.mass_before.empty()) MixHint(problem, hint, *scratch);
  double missing = alpha * total - scratch->front();
  for (int64_t t = problem.first_own_tile; t < n_tiles; ++t) missing -= (*scratch)[static_cast<size_t>(t)];

  // A heap gives the heaviest tiles first, and is only taken apart as far as needed.
  const auto lighter = [&](int32_t a, int32_t b) {
    const float x = (*scratch)[static_cast<size_t>(a)];
    const float y = (*scratch)[static_cast<size_t>(b)];
    return x != y ? x < y : a > b;
  };
  tiles->resize(static_cast<size_t>(problem.first_own_tile - 1));
  std::iota(tiles->begin(), tiles->end(), 1);
  std::make_heap(tiles->begin(), tiles->end(), lighter);
  auto heap_end = tiles->end();
  while (missing > 0 && heap_end != tiles->begin()) {
    std::pop_heap(tiles->begin(), heap_end, lighter);
    missing -= (*scratch)[static_cast<size_t>(*--heap_end)];
  }
  tiles->erase(tiles->begin(), heap_end);
  tiles->push_back(0);
  for (int64_t t = problem.first_own_tile; t < n_tiles; ++t) tiles->push_back(static_cast<int32_t>(t));
  std::sort(tiles->begin(), tiles->end());
}

}  // namespace loopserve
