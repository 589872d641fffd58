// The weights of a layer as prefill multiplies with them: dequantised and packed, related matrices side by side so that
// one product serves them all. The first layers that fit into the cache stay packed; the others share one place and are
// packed again for each prefill.
// Thread rule: one owner; Prepare uses the compute threads.
#pragma once

#include <cstddef>
#include <vector>

#include "loopserve/status.h"
#include "src/base/aligned_buffer.h"
#include "src/model/compute_threads.h"
#include "src/model/gemm.h"
#include "src/model/model.h"

namespace loopserve {

/// One packed matrix: k inputs, n outputs.
struct PackedMatrix {
  const std::byte* data = nullptr;
  int64_t k = 0;
  int64_t n = 0;
  const float* bias = nullptr;  ///< f32 [n] or null
};

struct PackedLayer {
  PackedMatrix qkv;  ///< n = q_width + 2 * kv_width
  PackedMatrix out;
  PackedMatrix gate_up;  ///< n = 2 * n_ff
  PackedMatrix down;
};

class PrefillWeights {
 public:
  PrefillWeights(const Model& model, const Gemm& gemm, ComputeThreads& threads, size_t cache_bytes);

  /// Packs layer i if it is not there. The pointer is valid until the next call.
  Result<const PackedLayer*> Prepare(int i);

  /// f32 rows [first, first + n) of a ggml matrix: [n, ne0]. `target` holds them contiguously.
  static void DequantizeRows(const ggml_tensor* matrix, int64_t first, int64_t n, float* target);

 private:
  Status Pack(int i, std::byte* target, PackedLayer* layer);

  const Model& model_;
  const Gemm& gemm_;
  ComputeThreads& threads_;
  size_t layer_bytes_ = 0;
  int n_cached_ = 0;
  std::vector<AlignedBuffer> cached_buffers_;
  std::vector<PackedLayer> cached_;
  AlignedBuffer shared_buffer_;
  PackedLayer shared_;
  int shared_layer_ = -1;
  std::vector<std::vector<float>> biases_;  ///< fused, [4 * n_layers], empty where there is none
  std::vector<AlignedBuffer> scratch_;      ///< per thread: dequantised rows
};

}  // namespace loopserve
