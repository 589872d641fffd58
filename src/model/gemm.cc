#include "src/model/gemm.h"

#include <algorithm>

#include "src/base/check.h"
#include "src/kernels/elementwise.h"
#include "src/kernels/int8_product.h"
#include "src/model/gemm_int8.h"
#include "src/model/gemm_library.h"

namespace loopserve {
namespace {

size_t RowsBytes(const Gemm& gemm, int64_t k) {
  return (static_cast<size_t>(Gemm::kMaxRows) * gemm.PreparedRowBytes(k) + 63) / 64 * 64;
}

std::string WhyNot(GemmMath math) {
  if (math == GemmMath::kInt8) return "this CPU does not multiply 8-bit integers natively (AVX512_VNNI)";
  if (math == GemmMath::kBf16 && LibraryGemmIsAvailable(GemmMath::kF32)) {
    return "this CPU does not multiply bf16 natively";
  }
  return "this build has no oneDNN";
}

}  // namespace

bool Gemm::IsAvailable(GemmMath math) {
  return math == GemmMath::kInt8 ? CpuHasInt8Products() : LibraryGemmIsAvailable(math);
}

Result<std::unique_ptr<Gemm>> Gemm::Create(GemmMath math) {
  if (!IsAvailable(math)) return Status(StatusCode::kUnsupported, WhyNot(math));
  if (math == GemmMath::kInt8) return std::unique_ptr<Gemm>(std::make_unique<Int8Gemm>());
  return CreateLibraryGemm(math);
}

void Gemm::PackColumns(const float* rows, int64_t k, int64_t n, int64_t first_column, int64_t n_columns,
                       std::byte* packed) const {
  LS_CHECK(first_column % kPackColumns == 0 && n_columns <= kPackColumns && first_column + n_columns <= n);
  PackGroup(rows, k, n_columns,
            packed + PackedBytes(k, kPackColumns) * static_cast<size_t>(first_column / kPackColumns));
}

void Gemm::MultiplyPrepared(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows,
                            const float* bias, float* y, std::byte* scratch) const {
  MultiplyRows(packed, k, n, rows, n_rows, y, scratch);
  if (bias == nullptr) return;
  for (int64_t r = 0; r < n_rows; ++r) AddTo(bias, n, y + r * n);
}

size_t Gemm::MultiplyScratchBytes(int64_t k, int64_t n) const {
  return RowsBytes(*this, k) + ProductScratchBytes(k, n);
}

void Gemm::Multiply(const std::byte* packed, int64_t k, int64_t n, const float* x, int64_t x_stride, int64_t n_rows,
                    const float* bias, float* y, std::byte* scratch) const {
  const size_t row_bytes = PreparedRowBytes(k);
  for (int64_t first = 0; first < n_rows; first += kMaxRows) {
    const int64_t rows = std::min(kMaxRows, n_rows - first);
    for (int64_t r = 0; r < rows; ++r) {
      PrepareRow(x + (first + r) * x_stride, k, scratch + static_cast<size_t>(r) * row_bytes);
    }
    MultiplyPrepared(packed, k, n, scratch, rows, bias, y + first * n, scratch + RowsBytes(*this, k));
  }
}

}  // namespace loopserve
