#include "src/model/gemm_int8.h"

#include "src/base/check.h"
#include "src/kernels/elementwise.h"
#include "src/kernels/int8_product.h"

namespace loopserve {

static_assert(Gemm::kPackColumns % kInt8PanelColumns == 0);

size_t Int8Gemm::PackedBytes(int64_t k, int64_t n) const {
  return Int8WeightBytes(k, (n + kPackColumns - 1) / kPackColumns * kPackColumns);
}

void Int8Gemm::PackColumns(const float* rows, int64_t k, int64_t n, int64_t first_column, int64_t n_columns,
                           std::byte* packed) const {
  LS_CHECK(first_column % kPackColumns == 0 && n_columns <= kPackColumns && first_column + n_columns <= n);
  PackInt8Weights(rows, k, n_columns, packed + Int8WeightBytes(k, first_column));
}

size_t Int8Gemm::PreparedRowBytes(int64_t k) const { return Int8RowBytes(k); }

void Int8Gemm::PrepareRow(const float* row, int64_t k, std::byte* prepared) const { PrepareInt8Row(row, k, prepared); }

void Int8Gemm::MultiplyPrepared(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows,
                                const float* bias, float* y, std::byte*) const {
  Int8Product(packed, k, n, rows, n_rows, y);
  if (bias == nullptr) return;
  for (int64_t r = 0; r < n_rows; ++r) AddTo(bias, n, y + r * n);
}

}  // namespace loopserve
