#include "src/selection/tiles/tile_choice.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>

namespace loopserve {
namespace {

void TakeAll(int64_t n_tiles, std::vector<int32_t>* tiles) {
  tiles->resize(static_cast<size_t>(n_tiles));
  std::iota(tiles->begin(), tiles->end(), 0);
}

// A tile's weight and index in one number that is larger for the heavier tile, and for the earlier of equals: weights
// are not negative, so their bits are ordered as they are.
uint64_t Rank(float mass, uint32_t tile) { return uint64_t{std::bit_cast<uint32_t>(mass)} << 32 | ~tile; }
int32_t TileOf(uint64_t rank) { return static_cast<int32_t>(~static_cast<uint32_t>(rank)); }
float MassOf(uint64_t rank) { return std::bit_cast<float>(static_cast<uint32_t>(rank >> 32)); }

/// The fewest of `ranks` that hold `missing`, or all; in time linear in their number. Reorders them.
std::span<const uint64_t> HeaviestThatHold(std::span<uint64_t> ranks, double missing) {
  size_t taken = 0;  // what stands before is taken, what stands from `end` on is lighter than what will be
  size_t end = ranks.size();
  while (missing > 0 && taken < end) {
    const size_t half = (end - taken + 1) / 2;
    const auto first = ranks.begin() + static_cast<std::ptrdiff_t>(taken);
    const auto middle = first + static_cast<std::ptrdiff_t>(half);
    const auto last = ranks.begin() + static_cast<std::ptrdiff_t>(end);
    if (middle != last) std::nth_element(first, middle, last, std::greater<>());
    double held = 0;
    for (auto i = first; i != middle; ++i) held += MassOf(*i);
    if (half > 1 && held >= missing) {
      end = taken + half;
    } else {
      missing -= held;
      taken += half;
    }
  }
  return ranks.first(taken);
}

}  // namespace

void ChooseTiles(const TileProblem& problem, double alpha, std::vector<uint64_t>* scratch,
                 std::vector<int32_t>* tiles) {
  const std::span<const float> mass = problem.mass;
  const auto n_tiles = static_cast<int64_t>(mass.size());
  tiles->clear();
  const double total = std::accumulate(mass.begin(), mass.end(), 0.0);
  if (alpha >= 1 || !std::isfinite(total) || problem.first_own_tile <= 1) return TakeAll(n_tiles, tiles);
  double missing = alpha * total - mass.front();
  for (int64_t t = problem.first_own_tile; t < n_tiles; ++t) missing -= mass[static_cast<size_t>(t)];

  scratch->resize(static_cast<size_t>(problem.first_own_tile - 1));
  for (size_t i = 0; i < scratch->size(); ++i) (*scratch)[i] = Rank(mass[i + 1], static_cast<uint32_t>(i + 1));
  tiles->push_back(0);
  for (const uint64_t rank : HeaviestThatHold(*scratch, missing)) tiles->push_back(TileOf(rank));
  for (int64_t t = problem.first_own_tile; t < n_tiles; ++t) tiles->push_back(static_cast<int32_t>(t));
  std::sort(tiles->begin(), tiles->end());
}

}  // namespace loopserve
