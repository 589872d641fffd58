// The matrix products of one layer as graph nodes, in two ways: ggml's quantised kernels on the weights as they are
// stored, and packed weights through Gemm. The graph around them (norms, RoPE, residuals) is the same for both.
// Thread rule: one owner; nodes made since the last Reset must outlive the graph's computation.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "ggml.h"
#include "src/base/aligned_buffer.h"
#include "src/model/gemm.h"
#include "src/model/model.h"
#include "src/model/prefill_weights.h"

namespace loopserve {

/// Projections of a chunk, ggml shapes [head_dim, heads, rows]; rows may be strided.
struct Projections {
  ggml_tensor* q = nullptr;
  ggml_tensor* k = nullptr;
  ggml_tensor* v = nullptr;
};

class LayerMath {
 public:
  virtual ~LayerMath() = default;
  /// x: f32 [n_embd, rows], contiguous.
  virtual Projections Project(ggml_context* context, int layer, ggml_tensor* x) = 0;
  /// x: f32 [q_width, rows] -> [n_embd, rows].
  virtual ggml_tensor* AttentionOutput(ggml_context* context, int layer, ggml_tensor* x) = 0;
  /// x: f32 [n_embd, rows] -> [n_embd, rows]: down(activation(gate(x)) * up(x)).
  virtual ggml_tensor* FeedForward(ggml_context* context, int layer, ggml_tensor* x) = 0;
};

/// ggml's kernels: best for few rows, where reading the weights is the cost. Activations are rounded to 8 bits.
class QuantizedMath : public LayerMath {
 public:
  explicit QuantizedMath(const Model& model) : model_(model) {}
  Projections Project(ggml_context* context, int layer, ggml_tensor* x) override;
  ggml_tensor* AttentionOutput(ggml_context* context, int layer, ggml_tensor* x) override;
  ggml_tensor* FeedForward(ggml_context* context, int layer, ggml_tensor* x) override;

 private:
  const Model& model_;
};

/// Packed weights of the layer last given to SetLayer, multiplied by oneDNN on ggml's threads.
class PackedMath : public LayerMath {
 public:
  PackedMath(const Model& model, const Gemm& gemm, int n_threads);

  /// kResourceExhausted without memory for scratch. Forgets the nodes made before.
  Status SetLayer(const PackedLayer* layer);
  Projections Project(ggml_context* context, int layer, ggml_tensor* x) override;
  ggml_tensor* AttentionOutput(ggml_context* context, int layer, ggml_tensor* x) override;
  ggml_tensor* FeedForward(ggml_context* context, int layer, ggml_tensor* x) override;

 private:
  /// A node's work; threads take its rows block by block.
  struct Product {
    Product(const PackedMath* math_in, const PackedMatrix* matrix_in) : math(math_in), matrix(matrix_in) {}
    const PackedMath* math;
    const PackedMatrix* matrix;
    std::atomic<int64_t> next_block{0};
  };
  static void RunProduct(ggml_tensor* y, int thread, int n_threads, void* product);
  static void RunFeedForward(ggml_tensor* y, int thread, int n_threads, void* product);
  ggml_tensor* AddProduct(ggml_context* context, const PackedMatrix& matrix, ggml_tensor* x);

  const Model& model_;
  const Gemm& gemm_;
  const PackedLayer* layer_ = nullptr;
  std::vector<std::unique_ptr<Product>> products_;
  std::vector<AlignedBuffer> scratch_;  ///< per thread
};

}  // namespace loopserve
