#include "src/model/rope_table.h"

#include <algorithm>
#include <new>

#include "src/base/check.h"
#include "src/model/layer_math.h"

namespace loopserve {
namespace {

/// Rows that go through ggml at a time: little memory beside the table.
constexpr int64_t kChunkRows = 1024;
constexpr size_t kMaxNodes = 16;

}  // namespace

RopeTable::RopeTable(const Model& model)
    : model_(model),
      n_pairs_(model.params().rope.n_dims / 2),
      pairs_(model.params().rope.mode == GGML_ROPE_TYPE_NEOX ? RopePairs::kHalves : RopePairs::kNeighbours),
      memory_(kMaxNodes) {
  LS_CHECK(model.params().rope.mode == GGML_ROPE_TYPE_NEOX || model.params().rope.mode == GGML_ROPE_TYPE_NORMAL);
}

Status RopeTable::Fill(std::span<const int32_t> positions, ComputeThreads& threads) {
  const std::vector<bool>& sliding = model_.params().is_sliding_layer;
  LS_RETURN_IF_ERROR(FillOne(false, positions, threads, &global_));
  if (std::ranges::none_of(sliding, [](bool is_sliding) { return is_sliding; })) return Status::Ok();
  return FillOne(true, positions, threads, &sliding_);
}

Status RopeTable::FillOne(bool is_sliding, std::span<const int32_t> positions, ComputeThreads& threads,
                          std::vector<float>* table) {
  const auto n_rows = static_cast<int64_t>(positions.size());
  const int64_t width = 2 * n_pairs_;
  std::vector<float> unit;
  try {
    table->resize(static_cast<size_t>(n_rows * width));
    unit.resize(static_cast<size_t>(std::min(n_rows, kChunkRows) * width));
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for the positions of a prompt");
  }
  const bool halves = pairs_ == RopePairs::kHalves;
  const int64_t first_step = halves ? 1 : 2;              // from a pair's first element to the next pair's
  const int64_t second = halves ? n_pairs_ : int64_t{1};  // from a pair's first element to its second
  for (int64_t first = 0; first < n_rows; first += kChunkRows) {
    const int64_t rows = std::min(kChunkRows, n_rows - first);
    // A pair (1, 0) turns into its cosine and sine.
    std::ranges::fill(unit, 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < n_pairs_; ++i) unit[static_cast<size_t>(r * width + i * first_step)] = 1.0f;
    }
    ggml_cgraph* graph = memory_.Begin();
    ggml_context* context = memory_.context();
    ggml_tensor* ones = ggml_reshape_3d(context, memory_.External(unit.data(), width, rows, width), width, 1, rows);
    ggml_tensor* at = memory_.ExternalInts(const_cast<int32_t*>(positions.data()) + first, rows);
    ggml_tensor* turned = Rope(context, model_, is_sliding, ones, at);
    ggml_set_output(turned);
    ggml_build_forward_expand(graph, turned);
    LS_RETURN_IF_ERROR(memory_.Allocate(graph));
    LS_RETURN_IF_ERROR(threads.Run(graph));
    const auto* pairs = static_cast<const float*>(turned->data);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = table->data() + (first + r) * width;
      for (int64_t i = 0; i < n_pairs_; ++i) {
        const float* pair = pairs + r * width + i * first_step;
        row[i] = pair[0];
        row[n_pairs_ + i] = pair[second];
      }
    }
  }
  return Status::Ok();
}

}  // namespace loopserve
