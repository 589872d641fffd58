// Which rows are looked at to decide for all. Deterministic: a sample depends on its key alone.
#pragma once

#include <cstdint>
#include <span>

namespace loopserve {

/// What a sample is for.
struct SampleKey {
  uint64_t seed;
  int64_t layer, head, block;
};

/// One row at random out of each of min(n, n_rows) equal strata of rows [first, first + n_rows), ascending, into
/// `rows`. Returns how many.
int SampleStrata(const SampleKey& key, int64_t first, int64_t n_rows, int n, int64_t* rows);

/// A row of [first, first + n_rows) at random that is not among `sampled` (ascending, fewer than n_rows).
int64_t HeldOutRow(const SampleKey& key, int64_t first, int64_t n_rows, std::span<const int64_t> sampled);

}  // namespace loopserve
