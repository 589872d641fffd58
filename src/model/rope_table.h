// Cosines and sines of the rotary position embedding, computed once for a prompt instead of in every layer. They come
// out of ggml's own operator, so that every scaling that it knows (linear, YaRN, Llama 3 factors) is here too.
// Thread rule: one owner for Fill; Row may be called by many threads between two Fills.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "loopserve/status.h"
#include "src/kernels/rope.h"
#include "src/model/compute_threads.h"
#include "src/model/model.h"

namespace loopserve {

class RopeTable {
 public:
  explicit RopeTable(const Model& model);

  /// Of these positions, for the model's sliding-window layers too if it has any. kResourceExhausted.
  Status Fill(std::span<const int32_t> positions, ComputeThreads& threads);

  /// What RotateHeads takes, for row number `row` of the positions.
  const float* Row(bool is_sliding, int64_t row) const {
    return (is_sliding ? sliding_ : global_).data() + row * 2 * n_pairs_;
  }
  int64_t n_pairs() const { return n_pairs_; }
  RopePairs pairs() const { return pairs_; }

 private:
  Status FillOne(bool is_sliding, std::span<const int32_t> positions, ComputeThreads& threads,
                 std::vector<float>* table);

  const Model& model_;
  int64_t n_pairs_;
  RopePairs pairs_;
  GraphMemory memory_;
  std::vector<float> global_, sliding_;  ///< [rows][2 * n_pairs]
};

}  // namespace loopserve
