#include "src/model/packed_math.h"

#include <algorithm>
#include <cstring>

#include "ggml.h"
#include "src/kernels/elementwise.h"
#include "src/model/heads.h"

namespace loopserve {
namespace {

/// Rows of a block. Few enough that the intermediate results of the feed-forward block stay in the second-level cache
/// and that a thread which was held up does not hold up the others; 32 to 256 were equally fast.
constexpr int64_t kBlockRows = 64;

const float* FloatsOf(const ggml_tensor* tensor) {
  return tensor == nullptr ? nullptr : static_cast<const float*>(tensor->data);
}

/// Where the next buffer begins behind `bytes`.
size_t Aligned(size_t bytes) {
  return (bytes + AlignedBuffer::kAlignment - 1) / AlignedBuffer::kAlignment * AlignedBuffer::kAlignment;
}

}  // namespace

/// A thread's memory, cut up.
struct PackedMath::Scratch {
  float* wide;          ///< [kBlockRows, n] of the widest of projections and gate beside up
  float* delta;         ///< [kBlockRows, n_embd]
  float* row;           ///< one row of the residual stream
  std::byte* prepared;  ///< kBlockRows of Gemm's rows, of the longest k
  std::byte* gemm;      ///< Gemm's own
};

PackedMath::PackedMath(const Model& model, const Gemm& gemm, ComputeThreads& threads)
    : model_(model), gemm_(gemm), threads_(threads), scratch_(static_cast<size_t>(threads.n_threads())) {}

Status PackedMath::SetLayer(int layer, const PackedLayer* packed) {
  layer_ = layer;
  packed_ = packed;
  size_t row_bytes = 0, gemm_bytes = 0;
  for (const PackedMatrix* m : {&packed->qkv, &packed->out, &packed->gate_up, &packed->down}) {
    row_bytes = std::max(row_bytes, gemm_.PreparedRowBytes(m->k));
    gemm_bytes = std::max(gemm_bytes, gemm_.ProductScratchBytes(m->k, m->n));
  }
  const auto floats = [](int64_t n) { return static_cast<size_t>(n) * sizeof(float); };
  const int64_t n_embd = model_.params().n_embd;
  offsets_.delta = Aligned(floats(kBlockRows * std::max(packed->qkv.n, packed->gate_up.n)));
  offsets_.row = offsets_.delta + Aligned(floats(kBlockRows * n_embd));
  offsets_.prepared = offsets_.row + Aligned(floats(n_embd));
  offsets_.gemm = offsets_.prepared + Aligned(static_cast<size_t>(kBlockRows) * row_bytes);
  for (AlignedBuffer& scratch : scratch_) {
    if (!scratch.Reserve(offsets_.gemm + gemm_bytes)) {
      return Status(StatusCode::kResourceExhausted, "not enough memory for prefill scratch");
    }
  }
  return Status::Ok();
}

PackedMath::Scratch PackedMath::ScratchOf(int thread) {
  std::byte* begin = scratch_[static_cast<size_t>(thread)].data();
  return {reinterpret_cast<float*>(begin), reinterpret_cast<float*>(begin + offsets_.delta),
          reinterpret_cast<float*>(begin + offsets_.row), begin + offsets_.prepared, begin + offsets_.gemm};
}

template <class Body>
Status PackedMath::ForBlocks(int64_t n_rows, const Body& body) {
  return threads_.ForItems((n_rows + kBlockRows - 1) / kBlockRows, [&](int64_t block, int thread) {
    const int64_t first = block * kBlockRows;
    body(first, std::min(kBlockRows, n_rows - first), ScratchOf(thread));
  });
}

void PackedMath::Multiply(const PackedMatrix& matrix, const float* x, const float* norm, int64_t rows,
                          const Scratch& scratch, float* y) const {
  const size_t row_bytes = gemm_.PreparedRowBytes(matrix.k);
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * matrix.k;
    if (norm != nullptr) {
      RmsNormalize(row, norm, matrix.k, model_.params().rms_eps, scratch.row);
      row = scratch.row;
    }
    gemm_.PrepareRow(row, matrix.k, scratch.prepared + static_cast<size_t>(r) * row_bytes);
  }
  gemm_.MultiplyPrepared(matrix.data, matrix.k, matrix.n, scratch.prepared, rows, matrix.bias, y, scratch.gemm);
}

void PackedMath::AddResidual(float* delta, const float* post_norm, int64_t rows, float* x) const {
  const int64_t n_embd = model_.params().n_embd;
  for (int64_t r = 0; r < rows; ++r) {
    float* row = delta + r * n_embd;
    if (post_norm != nullptr) RmsNormalize(row, post_norm, n_embd, model_.params().rms_eps, row);
    AddTo(row, n_embd, x + r * n_embd);
  }
}

Status PackedMath::BeforeAttention(const float* x, int64_t n_rows, int64_t first_position, const RopeTable& rope,
                                   int64_t first_row, KvCache* cache, float* q) {
  const HyperParams& p = model_.params();
  const LayerWeights& w = model_.layer(layer_);
  const int64_t q_width = p.q_width();
  const int64_t kv_width = p.kv_width();
  const int64_t width = packed_->qkv.n;
  return ForBlocks(n_rows, [&](int64_t first, int64_t rows, const Scratch& scratch) {
    Multiply(packed_->qkv, x + first * p.n_embd, FloatsOf(w.attn_norm), rows, scratch, scratch.wide);
    for (int64_t r = 0; r < rows; ++r) {
      float* projected = scratch.wide + r * width;
      const float* turns = rope.Row(p.is_sliding_layer[layer_], first_row + first + r);
      FinishQueries(model_, layer_, turns, projected);
      FinishKeys(model_, layer_, turns, projected + q_width);
      std::memcpy(q + (first + r) * q_width, projected, static_cast<size_t>(q_width) * sizeof(float));
    }
    const float* keys = scratch.wide + q_width;
    cache->StoreRows(layer_, first_position + first, rows, keys, keys + kv_width, width);
  });
}

void PackedMath::FeedForward(int64_t rows, const Scratch& scratch, float* x) const {
  const LayerWeights& w = model_.layer(layer_);
  const PackedMatrix& down = packed_->down;
  Multiply(packed_->gate_up, x, FloatsOf(w.ffn_norm), rows, scratch, scratch.wide);
  const bool is_silu = model_.params().activation == Activation::kSilu;
  const size_t row_bytes = gemm_.PreparedRowBytes(down.k);
  for (int64_t r = 0; r < rows; ++r) {
    float* gate = scratch.wide + r * packed_->gate_up.n;
    is_silu ? SiluMultiply(gate, gate + down.k, down.k) : GeluMultiply(gate, gate + down.k, down.k);
    gemm_.PrepareRow(gate, down.k, scratch.prepared + static_cast<size_t>(r) * row_bytes);
  }
  gemm_.MultiplyPrepared(down.data, down.k, down.n, scratch.prepared, rows, down.bias, scratch.delta, scratch.gemm);
  AddResidual(scratch.delta, FloatsOf(w.ffn_post_norm), rows, x);
}

Status PackedMath::AfterAttention(const float* attention, int64_t n_rows, float* x) {
  const LayerWeights& w = model_.layer(layer_);
  const PackedMatrix& out = packed_->out;
  return ForBlocks(n_rows, [&](int64_t first, int64_t rows, const Scratch& scratch) {
    float* block = x + first * out.n;
    Multiply(out, attention + first * out.k, nullptr, rows, scratch, scratch.delta);
    AddResidual(scratch.delta, FloatsOf(w.attn_post_norm), rows, block);
    FeedForward(rows, scratch, block);
  });
}

}  // namespace loopserve
