#include "src/selection/row_sample.h"

#include <algorithm>

#include "src/base/check.h"

namespace loopserve {
namespace {

/// SplitMix64 (Steele, Lea, Flood 2014): a good hash of a counter.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t Hash(const SampleKey& key, uint64_t i) {
  uint64_t h = Mix(key.seed);
  for (const int64_t part : {key.layer, key.head, key.block}) h = Mix(h ^ static_cast<uint64_t>(part));
  return Mix(h ^ i);
}

}  // namespace

int SampleStrata(const SampleKey& key, int64_t first, int64_t n_rows, int n, int64_t* rows) {
  const int64_t strata = std::min<int64_t>(n, n_rows);
  for (int64_t i = 0; i < strata; ++i) {
    const int64_t begin = n_rows * i / strata;
    const int64_t end = n_rows * (i + 1) / strata;
    rows[i] =
        first + begin + static_cast<int64_t>(Hash(key, static_cast<uint64_t>(i)) % static_cast<uint64_t>(end - begin));
  }
  return static_cast<int>(strata);
}

int64_t HeldOutRow(const SampleKey& key, int64_t first, int64_t n_rows, std::span<const int64_t> sampled) {
  const int64_t left = n_rows - static_cast<int64_t>(sampled.size());
  LS_CHECK(left > 0);
  constexpr uint64_t kStream = 1u << 20;  // apart from the strata's
  int64_t row = first + static_cast<int64_t>(Hash(key, kStream) % static_cast<uint64_t>(left));
  for (const int64_t taken : sampled) row += taken <= row ? 1 : 0;
  return row;
}

}  // namespace loopserve
