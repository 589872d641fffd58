// Cosines and sines of the rotary position embedding, computed once for a row instead of in every layer. They come out
// of ggml's own operator, so that every scaling that it knows (linear, YaRN, Llama 3 factors) is here too.
// The turns of a row: f32 [n_dims / 2] cosines, then as many sines, as RotateHeads takes them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "loopserve/status.h"
#include "src/model/compute_threads.h"
#include "src/model/model.h"

namespace loopserve {

/// What RopeTurns turns: [rows][n_dims].
std::vector<float> RopeUnits(const Model& model, int64_t rows);
/// Nodes that compute the turns of rows at `positions`, i32 [rows]: f32 [n_dims, rows]. `units` must outlive the graph.
ggml_tensor* RopeTurns(GraphMemory& memory, const Model& model, bool is_sliding, float* units, ggml_tensor* positions);

/// The turns of a prompt's rows. Thread rule: one owner for Fill; Row may be called by many threads between two Fills.
class RopeTable {
 public:
  explicit RopeTable(const Model& model);

  /// Of these positions, for the model's sliding-window layers too if it has any. kResourceExhausted.
  Status Fill(std::span<const int32_t> positions, ComputeThreads& threads);

  const float* Row(bool is_sliding, int64_t row) const {
    return (is_sliding ? sliding_ : global_).data() + row * model_.params().rope.n_dims;
  }

 private:
  Status FillOne(bool is_sliding, std::span<const int32_t> positions, ComputeThreads& threads,
                 std::vector<float>* table);

  const Model& model_;
  GraphMemory memory_;
  std::vector<float> global_, sliding_;
};

}  // namespace loopserve
