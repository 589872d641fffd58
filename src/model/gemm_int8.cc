#include "src/model/gemm_int8.h"

#include "src/kernels/int8_product.h"

namespace loopserve {

static_assert(Gemm::kPackColumns % kInt8PanelColumns == 0);

size_t Int8Gemm::PackedBytes(int64_t k, int64_t n) const {
  return Int8WeightBytes(k, (n + kPackColumns - 1) / kPackColumns * kPackColumns);
}

void Int8Gemm::PackGroup(const float* rows, int64_t k, int64_t n_columns, std::byte* target) const {
  PackInt8Weights(rows, k, n_columns, target);
}

size_t Int8Gemm::PreparedRowBytes(int64_t k) const { return Int8RowBytes(k); }

void Int8Gemm::PrepareRow(const float* row, int64_t k, std::byte* prepared) const { PrepareInt8Row(row, k, prepared); }

void Int8Gemm::MultiplyRows(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows,
                            float* y, std::byte*) const {
  Int8Product(packed, k, n, rows, n_rows, y);
}

}  // namespace loopserve
