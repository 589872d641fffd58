// Products in 8-bit integers (src/kernels/int8_product.h) as a Gemm.
#pragma once

#include "src/model/gemm.h"

namespace loopserve {

class Int8Gemm : public Gemm {
 public:
  Int8Gemm() : Gemm(GemmMath::kInt8) {}

  size_t PackedBytes(int64_t k, int64_t n) const override;
  size_t PreparedRowBytes(int64_t k) const override;
  void PrepareRow(const float* row, int64_t k, std::byte* prepared) const override;
  size_t ProductScratchBytes(int64_t, int64_t) const override { return 0; }

 private:
  void PackGroup(const float* rows, int64_t k, int64_t n_columns, std::byte* target) const override;
  void MultiplyRows(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows, float* y,
                    std::byte* scratch) const override;
};

}  // namespace loopserve
