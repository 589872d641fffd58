// Products of prefill in 8-bit integers: many rows of activations times weights that were rounded and packed once.
// Both are rounded in groups of 32 inputs, each group with a scale of its own; sums of a group are exact integers, sums
// of groups f32. vpdpbusd multiplies four pairs a lane: twice the multiply-adds of a bf16 product, of which scaling
// takes a fifth. What it costs in precision: docs/decisions/0009-int8-products.md.
//
// Packed weights: panels of 32 outputs one after another, in each its groups:
//   u8 [8 steps][32 outputs][4 inputs], integers + 128; f32 [32], their scales
// A prepared row: i8 [k rounded up to 32]; f32 [groups], scales; i32 [groups], -128 * the group's sum.
// Thread rule: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace loopserve {

inline constexpr int64_t kInt8Group = 32;
inline constexpr int64_t kInt8PanelColumns = 32;

/// Whether this CPU has the instructions (AVX512_VNNI); of the functions below only those named Plain run without.
bool CpuHasInt8Products();

/// Bytes of packed weights, k inputs and n outputs.
size_t Int8WeightBytes(int64_t k, int64_t n);
/// rows: f32 [n, k], one row for each output. What pads n and k is zero.
void PackInt8Weights(const float* rows, int64_t k, int64_t n, std::byte* packed);

/// Bytes of a prepared row, a multiple of 64.
size_t Int8RowBytes(int64_t k);
/// x: f32 [k] -> one row at `prepared`, 64-byte aligned. A group that holds a NaN or an infinity makes every product
/// NaN.
void PrepareInt8Row(const float* x, int64_t k, std::byte* prepared);
/// The same on any CPU, bit for bit.
void PrepareInt8RowPlain(const float* x, int64_t k, std::byte* prepared);

/// y[r, c] = prepared row r . weights of output c; rows one behind the other, y: f32 [n_rows, n]. A row's products are
/// the same, bit for bit, whatever rows are computed with it.
void Int8Product(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows, float* y);
/// The same on any CPU, sums of groups in double.
void Int8ProductPlain(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows, float* y);

}  // namespace loopserve
