// What selection reads of a row of scores: the largest, and sums of the exponentials. Scores are in units of log2.
#pragma once

#include <cstddef>

namespace loopserve {

/// Keys in a tile of choice: one vector of scores, a cache line of packed keys.
inline constexpr int kChoiceTileKeys = 16;

/// The largest of scores[0, n), or `floor` if that is larger. NaN counts as nothing.
float LargestScore(const float* scores, size_t n, float floor);

/// sums[i] = sum of 2^(scores[j] - shift) over tile i, j in [16 i, 16 i + 16); n a multiple of 16, shift at least every
/// score.
void TileExpSums(const float* scores, size_t n, float shift, float* sums);

/// scores[j] = 2^(scores[j] - shift) for j in [0, n), n a multiple of 16; returns their sum.
float ExpInPlace(float* scores, size_t n, float shift);

}  // namespace loopserve
