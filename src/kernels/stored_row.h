// A row of activations as StoredProduct reads it: int16 [k], then, at multiples of 64 bytes, for each group of 32 its
// scale and its sum (scale * sum of its integers): f32 [k / 32][2], and once more as f32 [k / 32] and f32 [k / 32], for
// types that take eight groups at a time. Internal to the kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/kernels/stored_product.h"

namespace loopserve {

struct PreparedRow {
  const int16_t* ints;
  const float* pairs;
  const float* scales;
  const float* sums;
};

constexpr size_t PreparedIntBytes(int64_t k) { return (static_cast<size_t>(k) * sizeof(int16_t) + 63) / 64 * 64; }
constexpr size_t PreparedGroups(int64_t k) { return (static_cast<size_t>(k) / 32 + 15) / 16 * 16; }

inline PreparedRow PreparedRowAt(const std::byte* prepared, int64_t k) {
  const auto* pairs = reinterpret_cast<const float*>(prepared + PreparedIntBytes(k));
  const size_t groups = PreparedGroups(k);
  return {reinterpret_cast<const int16_t*>(prepared), pairs, pairs + 2 * groups, pairs + 3 * groups};
}

/// Rows are multiplied in even parts of up to kMaxProductRows.
constexpr int64_t RowParts(int64_t n_rows) { return (n_rows + kMaxProductRows - 1) / kMaxProductRows; }
constexpr int64_t FirstRowOfPart(int64_t n_rows, int64_t part) { return n_rows * part / RowParts(n_rows); }
/// Behind the rows of a product of several, for each part: f32 [groups][2][kPaddedRows], a group's scales of all rows
/// side by side, then its sums; zero where there are fewer rows.
inline constexpr int kPaddedRows = 8;
constexpr size_t PartGroupsBytes(int64_t k) { return static_cast<size_t>(k) / 32 * 2 * kPaddedRows * sizeof(float); }
inline const float* GroupsOfRows(const std::byte* prepared, int64_t k, int64_t n_rows, int64_t part) {
  return reinterpret_cast<const float*>(prepared + static_cast<size_t>(n_rows) * PreparedRowBytes(k) +
                                        static_cast<size_t>(part) * PartGroupsBytes(k));
}

/// out[r * out_stride + c], c < n_columns, from `weights` on, in double.
void StoredColumnsPlain(StoredType type, const uint8_t* weights, int64_t k, const PreparedRow* rows, int n_rows,
                        int64_t n_columns, float* out, int64_t out_stride);

}  // namespace loopserve
