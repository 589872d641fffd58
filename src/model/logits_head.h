// The final norm and the output matrix: for the one row that is sampled from, and for all rows when a text is scored.
// Thread rule: one owner.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "loopserve/status.h"
#include "src/base/aligned_buffer.h"
#include "src/model/compute_threads.h"
#include "src/model/gemm.h"
#include "src/model/model.h"

namespace loopserve {

class LogitsHead {
 public:
  using RowCallback = std::function<void(int64_t row, std::span<const float> logits)>;

  /// gemm may be null.
  LogitsHead(const Model& model, const Gemm* gemm, ComputeThreads& threads);

  /// x: f32 [n_embd] -> logits f32 [n_vocab], by ggml's quantised kernels.
  Status LastRow(float* x, std::vector<float>* logits);
  /// x: f32 [n_rows, n_embd]. With `packed` (and a gemm) the products are in the gemm's precision.
  Status AllRows(float* x, int64_t n_rows, bool packed, const RowCallback& on_row);

 private:
  Status Quantized(float* x, int64_t n_rows, float* logits);
  Status Packed(float* x, int64_t n_rows, float* logits);
  Status Normalize(float* x, int64_t n_rows, float* target);

  const Model& model_;
  const Gemm* gemm_;
  ComputeThreads& threads_;
  GraphMemory memory_;
  AlignedBuffer logits_;
  AlignedBuffer normalized_;
  std::vector<AlignedBuffer> scratch_;  ///< per thread
};

}  // namespace loopserve
