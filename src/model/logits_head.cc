#include "src/model/logits_head.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "src/model/layer_graph.h"
#include "src/model/prefill_weights.h"

namespace loopserve {
namespace {

/// Logits of this many bytes are computed at a time.
constexpr size_t kLogitsBytes = size_t{64} << 20;
/// Columns of the output matrix that a thread dequantises and multiplies with at a time.
constexpr int64_t kBlockColumns = 512;

void StoreLogits(const float* source, int64_t n, float softcap, float* target) {
  if (softcap == 0.0f) {
    std::memcpy(target, source, static_cast<size_t>(n) * sizeof(float));
  } else {
    for (int64_t i = 0; i < n; ++i) target[i] = softcap * std::tanh(source[i] / softcap);
  }
}

Status NoMemory() { return Status(StatusCode::kResourceExhausted, "not enough memory for logits"); }

}  // namespace

LogitsHead::LogitsHead(const Model& model, const Gemm* gemm, ComputeThreads& threads)
    : model_(model), gemm_(gemm), threads_(threads), memory_(/*max_nodes=*/32), scratch_(threads.n_threads()) {}

Status LogitsHead::LastRow(float* x, std::vector<float>* logits) {
  logits->resize(static_cast<size_t>(model_.params().n_vocab));
  return Quantized(x, 1, logits->data());
}

Status LogitsHead::AllRows(float* x, int64_t n_rows, bool packed, const RowCallback& on_row) {
  const auto n_vocab = static_cast<size_t>(model_.params().n_vocab);
  const int64_t chunk = std::clamp<int64_t>(static_cast<int64_t>(kLogitsBytes / (n_vocab * sizeof(float))), 1, n_rows);
  if (!logits_.Reserve(static_cast<size_t>(chunk) * n_vocab * sizeof(float))) return NoMemory();
  for (int64_t first = 0; first < n_rows; first += chunk) {
    const int64_t rows = std::min(chunk, n_rows - first);
    float* source = x + first * model_.params().n_embd;
    LS_RETURN_IF_ERROR(packed && gemm_ != nullptr ? Packed(source, rows, logits_.floats())
                                                  : Quantized(source, rows, logits_.floats()));
    for (int64_t r = 0; r < rows; ++r) {
      on_row(first + r, {logits_.floats() + static_cast<size_t>(r) * n_vocab, n_vocab});
    }
  }
  logits_.Free();
  return Status::Ok();
}

Status LogitsHead::Quantized(float* x, int64_t n_rows, float* logits) {
  const HyperParams& p = model_.params();
  QuantizedMath math(model_);
  ggml_cgraph* graph = memory_.Begin();
  LayerGraph layers(memory_.context(), model_, math);
  ggml_tensor* result = layers.Logits(memory_.External(x, p.n_embd, n_rows, p.n_embd));
  ggml_tensor* target = memory_.External(logits, p.n_vocab, n_rows, p.n_vocab);
  ggml_build_forward_expand(graph, ggml_cpy(memory_.context(), result, target));
  LS_RETURN_IF_ERROR(memory_.Allocate(graph));
  return threads_.Run(graph);
}

Status LogitsHead::Normalize(float* x, int64_t n_rows, float* target) {
  const HyperParams& p = model_.params();
  QuantizedMath math(model_);
  ggml_cgraph* graph = memory_.Begin();
  LayerGraph layers(memory_.context(), model_, math);
  ggml_tensor* result = layers.OutputNorm(memory_.External(x, p.n_embd, n_rows, p.n_embd));
  ggml_build_forward_expand(graph,
                            ggml_cpy(memory_.context(), result, memory_.External(target, p.n_embd, n_rows, p.n_embd)));
  LS_RETURN_IF_ERROR(memory_.Allocate(graph));
  return threads_.Run(graph);
}

Status LogitsHead::Packed(float* x, int64_t n_rows, float* logits) {
  const HyperParams& p = model_.params();
  const int64_t k = p.n_embd;
  const size_t packed_bytes = gemm_->PackedBytes(k, kBlockColumns);
  const size_t rows_bytes = static_cast<size_t>(Gemm::kPackColumns * k) * sizeof(float);
  const size_t block_bytes = static_cast<size_t>(Gemm::kMaxRows * kBlockColumns) * sizeof(float);
  if (!normalized_.Reserve(static_cast<size_t>(n_rows * k) * sizeof(float))) return NoMemory();
  for (AlignedBuffer& scratch : scratch_) {
    if (!scratch.Reserve(packed_bytes + rows_bytes + block_bytes + gemm_->MultiplyScratchBytes(k, kBlockColumns))) {
      return NoMemory();
    }
  }
  LS_RETURN_IF_ERROR(Normalize(x, n_rows, normalized_.floats()));
  const int64_t n_blocks = (p.n_vocab + kBlockColumns - 1) / kBlockColumns;
  std::atomic<int64_t> next{0};
  return threads_.Parallel([&](int thread, int) {
    std::byte* packed = scratch_[thread].data();
    auto* rows = reinterpret_cast<float*>(packed + packed_bytes);
    auto* products = reinterpret_cast<float*>(packed + packed_bytes + rows_bytes);
    std::byte* rest = packed + packed_bytes + rows_bytes + block_bytes;
    for (int64_t block; (block = next.fetch_add(1)) < n_blocks;) {
      const int64_t first = block * kBlockColumns;
      const int64_t n = std::min(kBlockColumns, p.n_vocab - first);
      for (int64_t c = 0; c < n; c += Gemm::kPackColumns) {
        const int64_t columns = std::min(Gemm::kPackColumns, n - c);
        PrefillWeights::DequantizeRows(model_.output(), first + c, columns, rows);
        gemm_->PackColumns(rows, k, n, c, columns, packed);
      }
      for (int64_t r = 0; r < n_rows; r += Gemm::kMaxRows) {
        const int64_t rows_now = std::min(Gemm::kMaxRows, n_rows - r);
        gemm_->Multiply(packed, k, n, normalized_.floats() + r * k, k, rows_now, nullptr, products, rest);
        for (int64_t i = 0; i < rows_now; ++i) {
          StoreLogits(products + i * n, n, p.final_softcap, logits + (r + i) * p.n_vocab + first);
        }
      }
    }
  });
}

}  // namespace loopserve
