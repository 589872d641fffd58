// Which elements of the keys are coded with how many bits (kernels/key_codes.h). Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/kernels/key_codes.h"

namespace loopserve {

/// Bits of each element, 0 to kMaxCodeBits, that fit n_nibbles nibbles with no element in two of them: one after
/// another where a further bit takes most off the expected square error of a score (reverse water-filling). `energy`:
/// for each element, mean square of the queries times variance of the keys; at least 0. Equal gains: the first.
std::vector<uint8_t> ShareOutBits(std::span<const float> energy, int n_nibbles);

/// Where the bits of each element stand, by nibble. `bits` as ShareOutBits gives them.
std::vector<KeyCodebook::Place> PlaceBits(std::span<const uint8_t> bits, int n_nibbles);

/// A codebook for keys like these (f32 [n_keys][head_dim]) and queries like those of query_energy ([head_dim], mean
/// squares): one bit per element on average. False, and nothing written, if something is not finite.
bool FitCodebook(std::span<const float> keys, std::span<const float> query_energy, KeyCodebook* book);

}  // namespace loopserve
