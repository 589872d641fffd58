#include "src/model/rope_table.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "ggml.h"
#include "src/base/check.h"

namespace loopserve {
namespace {

/// Rows that go through ggml at a time: little memory beside the table.
constexpr int64_t kChunkRows = 1024;
constexpr size_t kMaxNodes = 16;

}  // namespace

std::vector<float> RopeUnits(const Model& model, int64_t rows) {
  const int64_t n_dims = model.params().rope.n_dims;
  std::vector<float> units(static_cast<size_t>(rows * n_dims), 0.0f);
  for (int64_t r = 0; r < rows; ++r) std::fill_n(units.begin() + r * n_dims, n_dims / 2, 1.0f);
  return units;
}

ggml_tensor* RopeTurns(GraphMemory& memory, const Model& model, bool is_sliding, float* units, ggml_tensor* positions) {
  // A pair (1, 0) turns into its cosine and sine; by halves, so that the cosines come out before the sines. Pair i of a
  // model that turns neighbours has the same angle.
  LS_CHECK(model.params().rope.mode == GGML_ROPE_TYPE_NEOX || model.params().rope.mode == GGML_ROPE_TYPE_NORMAL);
  const RopeParams& rope = model.params().rope;
  const int64_t rows = positions->ne[0];
  ggml_context* context = memory.context();
  ggml_tensor* pairs =
      ggml_reshape_3d(context, memory.External(units, rope.n_dims, rows, rope.n_dims), rope.n_dims, 1, rows);
  return ggml_rope_ext(context, pairs, positions, is_sliding ? nullptr : model.rope_factors(), rope.n_dims,
                       GGML_ROPE_TYPE_NEOX, rope.n_ctx_orig, is_sliding ? rope.freq_base_sliding : rope.freq_base,
                       is_sliding ? 1.0f : rope.freq_scale, rope.ext_factor, rope.attn_factor, rope.beta_fast,
                       rope.beta_slow);
}

RopeTable::RopeTable(const Model& model) : model_(model), memory_(kMaxNodes) {}

Status RopeTable::Fill(std::span<const int32_t> positions, ComputeThreads& threads) {
  LS_RETURN_IF_ERROR(FillOne(false, positions, threads, &global_));
  if (!model_.params().has_sliding_layers()) return Status::Ok();
  return FillOne(true, positions, threads, &sliding_);
}

Status RopeTable::FillOne(bool is_sliding, std::span<const int32_t> positions, ComputeThreads& threads,
                          std::vector<float>* table) {
  const auto n_rows = static_cast<int64_t>(positions.size());
  const int64_t n_dims = model_.params().rope.n_dims;
  std::vector<float> units;
  try {
    table->resize(static_cast<size_t>(n_rows * n_dims));
    units = RopeUnits(model_, std::min(n_rows, kChunkRows));
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for the positions of a prompt");
  }
  for (int64_t first = 0; first < n_rows; first += kChunkRows) {
    const int64_t rows = std::min(kChunkRows, n_rows - first);
    ggml_cgraph* graph = memory_.Begin();
    ggml_tensor* at = memory_.ExternalInts(const_cast<int32_t*>(positions.data()) + first, rows);
    ggml_tensor* turns = RopeTurns(memory_, model_, is_sliding, units.data(), at);
    ggml_set_output(turns);
    ggml_build_forward_expand(graph, turns);
    LS_RETURN_IF_ERROR(memory_.Allocate(graph));
    LS_RETURN_IF_ERROR(threads.Run(graph));
    std::memcpy(table->data() + first * n_dims, turns->data, static_cast<size_t>(rows * n_dims) * sizeof(float));
  }
  return Status::Ok();
}

}  // namespace loopserve
