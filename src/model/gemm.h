// Matrix products of prefill: many rows of activations times a weight matrix that was dequantised and packed once.
// f32 and bf16 are oneDNN's (docs/decisions/0003-prefill-products.md), 8-bit integers our own (0009); this header keeps
// both out of the rest.
// Thread rule: a Gemm is immutable after Create and Multiply may run on many threads at once, each with its own rows
// and scratch. Nothing here starts threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "loopserve/status.h"

namespace loopserve {

/// Operand precision of a product; sums are f32 in all.
enum class GemmMath : uint8_t { kF32, kBf16, kInt8 };

class Gemm {
 public:
  /// Columns (rows of the ggml matrix) that are packed together.
  static constexpr int64_t kPackColumns = 64;
  /// Rows are multiplied in pieces of at most this many.
  static constexpr int64_t kMaxRows = 256;

  /// Whether this build and this CPU can multiply so.
  static bool IsAvailable(GemmMath math);
  /// kUnsupported if !IsAvailable(math).
  static Result<std::unique_ptr<Gemm>> Create(GemmMath math);
  virtual ~Gemm() = default;

  GemmMath math() const { return math_; }

  /// Bytes of a packed matrix with k inputs and n outputs (columns are padded to kPackColumns).
  virtual size_t PackedBytes(int64_t k, int64_t n) const = 0;
  /// Packs n_columns <= kPackColumns consecutive columns, first_column a multiple of kPackColumns.
  /// rows: f32 [n_columns, k], one row for each column, as ggml stores weights.
  void PackColumns(const float* rows, int64_t k, int64_t n, int64_t first_column, int64_t n_columns,
                   std::byte* packed) const;

  /// Bytes of one prepared row of k inputs; rows stand one behind the other.
  virtual size_t PreparedRowBytes(int64_t k) const = 0;
  /// Rounds one row, f32 [k], to this math's operands.
  virtual void PrepareRow(const float* row, int64_t k, std::byte* prepared) const = 0;
  /// y[r, :] = row r * W (+ bias) of prepared rows. y: f32 [n_rows, n], contiguous (oneDNN has no fast kernel for
  /// anything else); bias: f32 [n] or null; scratch: ProductScratchBytes, 64-byte aligned, as the rows are.
  void MultiplyPrepared(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows,
                        const float* bias, float* y, std::byte* scratch) const;
  virtual size_t ProductScratchBytes(int64_t k, int64_t n) const = 0;

  /// The same of rows as they are: x: f32 [n_rows, k], rows x_stride floats apart; scratch: MultiplyScratchBytes.
  void Multiply(const std::byte* packed, int64_t k, int64_t n, const float* x, int64_t x_stride, int64_t n_rows,
                const float* bias, float* y, std::byte* scratch) const;
  size_t MultiplyScratchBytes(int64_t k, int64_t n) const;

 protected:
  explicit Gemm(GemmMath math) : math_(math) {}

 private:
  /// PackColumns of a group that is packed as a matrix of its own, at `target`.
  virtual void PackGroup(const float* rows, int64_t k, int64_t n_columns, std::byte* target) const = 0;
  /// MultiplyPrepared without bias.
  virtual void MultiplyRows(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows,
                            float* y, std::byte* scratch) const = 0;

  GemmMath math_;
};

}  // namespace loopserve
