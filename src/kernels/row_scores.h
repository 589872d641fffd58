// What selection reads of a row of scores: the largest, and the exponentials. Scores are in units of log2.
#pragma once

#include <cstddef>

namespace loopserve {

/// Keys in a tile of choice: one vector of scores, a cache line of packed keys.
inline constexpr int kChoiceTileKeys = 16;

/// The largest of scores[0, n), or `floor` if that is larger. NaN counts as nothing.
float LargestScore(const float* scores, size_t n, float floor);

/// scores[j] = 2^(scores[j] - shift) for j in [0, n), n a multiple of 16; returns their sum.
float ExpInPlace(float* scores, size_t n, float shift);

}  // namespace loopserve
