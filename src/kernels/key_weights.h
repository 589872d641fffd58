// From the code sums of keys (key_codes.h) to what each of them weighs, and which weigh most. Weights by codes are kept
// in bf16, written straight from integer arithmetic: their error of a hundredth is far below that of the codes.
// Thread rule: pure functions; nothing here allocates.
#pragma once

#include <bit>
#include <cstdint>

#include "src/kernels/key_codes.h"

namespace loopserve {

/// A weight as it is kept: the upper half of an f32.
constexpr float WeightOf(uint16_t bf16) { return std::bit_cast<float>(uint32_t{bf16} << 16); }

/// Weights, bf16, of the keys of n_groups groups relative to the heaviest of them: 2^(step * (sum - largest sum)),
/// within 1.2 %, and 0 below 2^-126; group_sums[g] = the weights of group g. base and step: as MakeCodeTables gives
/// them, scores in units of log2. Returns the heaviest's score; NaN if base is, and so are all weights then.
float WeighSums(const uint16_t* sums, int n_groups, float base, float step, uint16_t* weights, float* group_sums);

/// The heavy of keys [0, n), n a multiple of 16, by total(t) = sum over i of factor[i] * weights[i * stride + t]: those
/// with a total of at least `least`, ascending, as numbers and totals; returns how many. Room for n and 16 more in
/// both. A total that is NaN is not heavy. Numbers and totals behind the last, up to a multiple of 16, are 0.
int64_t FindHeavy(const uint16_t* weights, int64_t stride, const float* factor, int n_queries, int64_t n, float least,
                  int32_t* numbers, float* totals);

/// The same of totals that are known.
int64_t FindHeavyTotals(const float* all, int64_t n, float least, int32_t* numbers, float* totals);

}  // namespace loopserve
