// Matrix products of prefill: many rows of activations times a weight matrix that was dequantised and packed once.
// oneDNN does the arithmetic (docs/decisions/ says why); this header keeps it out of the rest.
// Thread rule: a Gemm is immutable after Create and Multiply may run on many threads at once, each with its own rows
// and scratch. Nothing here starts threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "loopserve/status.h"

namespace loopserve {

/// Operand precision of a product; sums are f32 in both.
enum class GemmMath : uint8_t { kF32, kBf16 };

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
  ~Gemm();

  GemmMath math() const { return math_; }
  size_t element_bytes() const { return math_ == GemmMath::kBf16 ? 2 : 4; }

  /// Bytes of a packed matrix with k inputs and n outputs (columns are padded to kPackColumns).
  size_t PackedBytes(int64_t k, int64_t n) const;
  /// Packs n_columns <= kPackColumns consecutive columns, first_column a multiple of kPackColumns.
  /// rows: f32 [n_columns, k], one row for each column, as ggml stores weights.
  void PackColumns(const float* rows, int64_t k, int64_t n, int64_t first_column, int64_t n_columns,
                   std::byte* packed) const;

  /// Scratch bytes that Multiply needs for a matrix with k inputs and n outputs.
  size_t ScratchBytes(int64_t k, int64_t n) const;
  /// y[r, :] = x[r, :] * W (+ bias). x: f32 [n_rows, k], rows x_stride floats apart; y: f32 [n_rows, n],
  /// contiguous (oneDNN has no fast kernel for anything else); bias: f32 [n] or null; scratch: 64-byte aligned.
  void Multiply(const std::byte* packed, int64_t k, int64_t n, const float* x, int64_t x_stride, int64_t n_rows,
                const float* bias, float* y, std::byte* scratch) const;
  /// The same with operands that are already in this math's element type: x [n_rows, k], contiguous.
  void MultiplyPrepared(const std::byte* packed, int64_t k, int64_t n, const std::byte* x, int64_t n_rows,
                        const float* bias, float* y, std::byte* scratch) const;
  /// Rounds n f32 elements to this math's element type.
  void Prepare(const float* source, int64_t n, std::byte* target) const;

 private:
  struct State;
  explicit Gemm(GemmMath math);
  GemmMath math_;
  std::unique_ptr<State> state_;
};

}  // namespace loopserve
