// The matrix products of a decode step: weights as they are stored, through our kernels (kernels/stored_product.h),
// with all that stands around a product in the same graph node: norm, bias, activation, residual. A step of few rows is
// bound by the bytes of the weights; what is left to save are the places where threads wait for each other. Matrices of
// types that the kernels do not know go through ggml (QuantizedMath). Thread rule: one owner. Nodes live as long as
// this.
#pragma once

#include <memory>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/model/layer_math.h"

namespace loopserve {

class StoredMath : public LayerMath {
 public:
  StoredMath(const Model& model, int n_threads);
  ~StoredMath() override;

  /// Whether our kernels multiply all matrices of a model: what they compute of a row does not depend on the other
  /// rows, bit for bit, which ggml does not promise.
  static bool KnowsAll(const Model& model);

  /// Scratch for graphs of up to this many rows. kResourceExhausted.
  Status Reserve(int64_t n_rows);
  /// Before each computation of the graph.
  void BeginStep();

  Projections Project(ggml_context* context, int layer, ggml_tensor* x) override;
  ggml_tensor* AddAttentionOutput(ggml_context* context, int layer, ggml_tensor* attention, ggml_tensor* x) override;
  ggml_tensor* AddFeedForward(ggml_context* context, int layer, ggml_tensor* x) override;
  ggml_tensor* Output(ggml_context* context, ggml_tensor* x) override;

 private:
  struct Product;  // a node
  static void RunProduct(ggml_tensor* y, int thread, int n_threads, void* product);
  static void RunGatedProduct(ggml_tensor* y, int thread, int n_threads, void* product);
  Product* AddNode(std::vector<ggml_tensor*> weights, std::vector<ggml_tensor*> biases, ggml_tensor* norm);
  ggml_tensor* AddResidualProduct(ggml_context* context, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* input,
                                  ggml_tensor* x, ggml_tensor* post_norm);
  struct Scratch;  // a thread's, cut for a node
  /// Normalises and prepares the rows of a node's input. Every thread does all of them: that costs less than waiting
  /// for one that does.
  Scratch PrepareInput(const Product& product, const ggml_tensor* input, int thread) const;

  QuantizedMath fallback_;
  int64_t widest_ = 0;  ///< the longest row that a product takes
  std::vector<std::unique_ptr<Product>> nodes_;
  std::vector<AlignedBuffer> scratch_;  ///< per thread
};

}  // namespace loopserve
