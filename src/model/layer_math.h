// The matrix products of one layer as graph nodes, with the norm before them and the residual after them, in two ways:
// ggml's quantised kernels, and, for the few rows of a decode step, our kernels on the weights as they are stored
// (stored_math.h). The graph around them (RoPE, attention) is the same for both. Many rows need no graph:
// packed_math.h. Thread rule: one owner; what a math made must outlive the graph's computation.
#pragma once

#include "ggml.h"
#include "src/model/model.h"

namespace loopserve {

/// Projections of a chunk, ggml shapes [head_dim, heads, rows]; rows may be strided.
struct Projections {
  ggml_tensor* q = nullptr;
  ggml_tensor* k = nullptr;
  ggml_tensor* v = nullptr;
};

/// x * weight / rms(x), row by row.
ggml_tensor* RmsNorm(ggml_context* context, const Model& model, ggml_tensor* x, ggml_tensor* weight);

/// x is the residual stream, f32 [n_embd, rows], contiguous; the graph's own: what is added is added in place.
class LayerMath {
 public:
  explicit LayerMath(const Model& model) : model_(model) {}
  virtual ~LayerMath() = default;
  /// Norm, then queries, keys and values.
  virtual Projections Project(ggml_context* context, int layer, ggml_tensor* x) = 0;
  /// x + output projection of attention, f32 [q_width, rows].
  virtual ggml_tensor* AddAttentionOutput(ggml_context* context, int layer, ggml_tensor* attention, ggml_tensor* x) = 0;
  /// x + down(activation(gate(h)) * up(h)) with h = norm(x).
  virtual ggml_tensor* AddFeedForward(ggml_context* context, int layer, ggml_tensor* x) = 0;
  /// Final norm and output matrix: f32 [n_vocab, rows]. By ggml's quantised kernels where not overridden.
  virtual ggml_tensor* Output(ggml_context* context, ggml_tensor* x);

 protected:
  /// x + delta, which passes the post-norm first where the family has one.
  ggml_tensor* AddResidual(ggml_context* context, ggml_tensor* x, ggml_tensor* delta, ggml_tensor* post_norm);
  const Model& model_;
};

/// ggml's kernels: for every stored type, and for more rows than a decode step has where there is no Gemm. Activations
/// are rounded to 8 bits.
class QuantizedMath : public LayerMath {
 public:
  using LayerMath::LayerMath;
  Projections Project(ggml_context* context, int layer, ggml_tensor* x) override;
  ggml_tensor* AddAttentionOutput(ggml_context* context, int layer, ggml_tensor* attention, ggml_tensor* x) override;
  ggml_tensor* AddFeedForward(ggml_context* context, int layer, ggml_tensor* x) override;
};

}  // namespace loopserve
