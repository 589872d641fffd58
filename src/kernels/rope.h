// Rotary position embedding (RoFormer, arXiv 2104.09864) with cosines and sines that the caller has.
// Thread rule: pure functions.
#pragma once

#include <cstdint>

namespace loopserve {

/// Which two elements of a head turn together: 2 i and 2 i + 1, or i and i + n_pairs.
enum class RopePairs : uint8_t { kNeighbours, kHalves };

/// Turns the first 2 * n_pairs elements of each head of a row, in place: (a, b) becomes (a c - b s, a s + b c).
/// x: f32 [n_heads][head_dim]; turns: f32 [n_pairs] cosines c, then [n_pairs] sines s.
void RotateHeads(const float* turns, int64_t n_pairs, RopePairs pairs, int64_t n_heads, int64_t head_dim, float* x);

}  // namespace loopserve
