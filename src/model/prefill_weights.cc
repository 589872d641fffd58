#include "src/model/prefill_weights.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "ggml.h"
#include "src/base/check.h"

namespace loopserve {
namespace {

/// A matrix to pack: tensors whose outputs stand one after another.
struct FusedSource {
  std::vector<const ggml_tensor*> parts;
  std::vector<const ggml_tensor*> biases;

  int64_t k() const { return parts.front()->ne[0]; }
  int64_t n() const {
    int64_t n = 0;
    for (const ggml_tensor* part : parts) n += part->ne[1];
    return n;
  }
};

std::array<FusedSource, 4> SourcesOf(const LayerWeights& w) {
  return {FusedSource{{w.wq, w.wk, w.wv}, {w.bq, w.bk, w.bv}}, FusedSource{{w.wo}, {w.bo}},
          FusedSource{{w.w_gate, w.w_up}, {w.b_gate, w.b_up}}, FusedSource{{w.w_down}, {w.b_down}}};
}

std::vector<float> FusedBias(const FusedSource& source) {
  if (std::all_of(source.biases.begin(), source.biases.end(), [](auto* b) { return b == nullptr; })) return {};
  std::vector<float> fused;
  for (size_t i = 0; i < source.parts.size(); ++i) {
    const auto n = static_cast<size_t>(source.parts[i]->ne[1]);
    const ggml_tensor* bias = source.biases[i];
    if (bias == nullptr) {
      fused.resize(fused.size() + n, 0.0f);
    } else {
      const auto* data = static_cast<const float*>(bias->data);
      fused.insert(fused.end(), data, data + n);
    }
  }
  return fused;
}

/// Dequantises columns [first, first + n) of the fused matrix to f32 [n, k].
void DequantizeColumns(const FusedSource& source, int64_t first, int64_t n, float* target) {
  for (const ggml_tensor* part : source.parts) {
    const int64_t begin = std::clamp<int64_t>(first, 0, part->ne[1]);
    const int64_t end = std::clamp<int64_t>(first + n, 0, part->ne[1]);
    PrefillWeights::DequantizeRows(part, begin, end - begin, target);
    target += (end - begin) * part->ne[0];
    first -= part->ne[1];
  }
}

}  // namespace

void PrefillWeights::DequantizeRows(const ggml_tensor* matrix, int64_t first, int64_t n, float* target) {
  const char* source = static_cast<const char*>(matrix->data) + first * static_cast<int64_t>(matrix->nb[1]);
  if (matrix->type == GGML_TYPE_F32) {
    std::memcpy(target, source, static_cast<size_t>(n * matrix->ne[0]) * sizeof(float));
  } else {
    ggml_get_type_traits(matrix->type)->to_float(source, target, n * matrix->ne[0]);
  }
}

PrefillWeights::PrefillWeights(const Model& model, const Gemm& gemm, ComputeThreads& threads, size_t cache_bytes)
    : model_(model), gemm_(gemm), threads_(threads), scratch_(threads.n_threads()) {
  const int n_layers = model.params().n_layers;
  layer_bytes_ = 0;  // the same for every layer: packed sizes depend on shapes only
  for (const FusedSource& source : SourcesOf(model.layer(0))) layer_bytes_ += gemm_.PackedBytes(source.k(), source.n());
  n_cached_ = static_cast<int>(std::min<size_t>(cache_bytes / layer_bytes_, static_cast<size_t>(n_layers)));
  cached_buffers_.resize(n_cached_);
  cached_.resize(n_cached_);
  for (int i = 0; i < n_layers; ++i) {
    for (const FusedSource& source : SourcesOf(model.layer(i))) biases_.push_back(FusedBias(source));
  }
}

Result<const PackedLayer*> PrefillWeights::Prepare(int i) {
  const bool is_cached = i < n_cached_;
  PackedLayer* layer = is_cached ? &cached_[i] : &shared_;
  AlignedBuffer& buffer = is_cached ? cached_buffers_[i] : shared_buffer_;
  if (is_cached ? layer->qkv.data != nullptr : shared_layer_ == i) return layer;
  if (!buffer.Reserve(layer_bytes_)) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for the dequantised weights of a layer");
  }
  if (!is_cached) shared_layer_ = -1;
  LS_RETURN_IF_ERROR(Pack(i, buffer.data(), layer));
  if (!is_cached) shared_layer_ = i;
  return layer;
}

Status PrefillWeights::Pack(int i, std::byte* target, PackedLayer* layer) {
  const std::array<FusedSource, 4> sources = SourcesOf(model_.layer(i));
  struct Task {
    const FusedSource* source;
    std::byte* target;
    int64_t first_column;
  };
  std::vector<Task> tasks;
  std::array<PackedMatrix, 4> matrices;
  int64_t longest_row = 0;
  for (size_t m = 0; m < sources.size(); ++m) {
    const std::vector<float>& bias = biases_[4 * static_cast<size_t>(i) + m];
    const int64_t n = sources[m].n();
    matrices[m] = {target, sources[m].k(), n, bias.empty() ? nullptr : bias.data()};
    for (int64_t c = 0; c < n; c += Gemm::kPackColumns) tasks.push_back({&sources[m], target, c});
    target += gemm_.PackedBytes(sources[m].k(), n);
    longest_row = std::max(longest_row, sources[m].k());
  }
  for (AlignedBuffer& scratch : scratch_) {
    if (!scratch.Reserve(static_cast<size_t>(longest_row * Gemm::kPackColumns) * sizeof(float))) {
      return Status(StatusCode::kResourceExhausted, "not enough memory to dequantise weights");
    }
  }
  LS_RETURN_IF_ERROR(threads_.ForItems(static_cast<int64_t>(tasks.size()), [&](int64_t t, int thread) {
    float* rows = scratch_[thread].floats();
    const Task& task = tasks[static_cast<size_t>(t)];
    const int64_t n = std::min(Gemm::kPackColumns, task.source->n() - task.first_column);
    DequantizeColumns(*task.source, task.first_column, n, rows);
    gemm_.PackColumns(rows, task.source->k(), task.source->n(), task.first_column, n, task.target);
  }));
  *layer = {matrices[0], matrices[1], matrices[2], matrices[3]};
  return Status::Ok();
}

}  // namespace loopserve
