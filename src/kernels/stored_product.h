// Products of weights as a GGUF file stores them with a few rows of activations: what a decode step spends its time on.
// Weights are read once, where they are, and become 16-bit integers on the way; activations are rounded to 16 bits too
// (ggml: to 8), with one scale for each group of 32. Bound: the bytes of the weights.
//
// Stored types are those of ggml (github.com/ggml-org/ggml, ggml-common.h); stored_product.cc has their layouts.
// Thread rule: pure functions; threads share a product by its columns.
#pragma once

#include <cstddef>
#include <cstdint>

namespace loopserve {

enum class StoredType : uint8_t { kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K };

/// Weights and bytes of one block of a type.
struct StoredBlock {
  int64_t weights = 0;
  int64_t bytes = 0;
};
StoredBlock BlockOf(StoredType type);

/// A weight matrix [n, k], row by row; k is a multiple of the type's block.
struct StoredMatrix {
  StoredType type = StoredType::kQ8_0;
  const std::byte* data = nullptr;
  int64_t k = 0;
  int64_t n = 0;
};

/// Rows of activations that are multiplied at a time, at most; more are taken in even parts, which read the weights
/// from a cache.
inline constexpr int kMaxProductRows = 4;

/// Bytes of one prepared row of k activations, a multiple of 64.
size_t PreparedRowBytes(int64_t k);

/// x: f32 [k], k a multiple of 32 -> one prepared row at `prepared` (aligned to 64 bytes). A group that holds a NaN or
/// an infinity gives NaN in every product.
void PrepareRow(const float* x, int64_t k, std::byte* prepared);

/// Bytes of n_rows prepared rows, one behind the other, and what a product of several takes of all of them.
size_t PreparedBytes(int64_t k, int64_t n_rows);
/// To be called when all rows are prepared.
void PrepareTogether(std::byte* prepared, int64_t k, int64_t n_rows);

/// out[r * out_stride + c] = dot(row first_column + c of the matrix, prepared row r), c < n_columns, r < n_rows, of
/// rows that were prepared together. A sum is the same, bit for bit, whatever other rows and columns are computed with
/// it.
void StoredProduct(const StoredMatrix& matrix, const std::byte* prepared, int64_t n_rows, int64_t first_column,
                   int64_t n_columns, float* out, int64_t out_stride);

}  // namespace loopserve
