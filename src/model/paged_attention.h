// Decode attention of Quest (Tang et al., arXiv 2406.10774): for every token each layer looks through the bounds of all
// pages, reads the keys of the pages whose keys could score highest, and of the newest page, and no others. The first
// layers are read in full. Which thread does what depends on n_threads alone. Thread rule: as token_attention.h.
#pragma once

#include <cstdint>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/model/hyper_params.h"
#include "src/model/token_attention.h"

namespace loopserve {

class PagedAttention final : public TokenAttention {
 public:
  PagedAttention(const HyperParams& params, int n_threads);
  ~PagedAttention() override;

  Status BeginStep(Dialogue& dialogue, int64_t position, bool mark_seen) override;
  bool Chooses(int layer) const override;
  /// Bounds of the whole pages.
  void Scan(int layer, const float* q, int thread) override;
  /// Chooses pages: for each KV head, or query head.
  void Weigh(int thread) override;
  void Attend(const KvHeadView* kv, int thread) override;
  void Merge(float* out, int thread) override;
  double KeysRead() const override;
  const uint8_t* Seen(int layer, int head) const override;

 private:
  struct ThreadState;
  float* BoundsOf(int head) { return bounds_.data() + int64_t{head} * stride_; }
  float* Partials(int thread) {
    return reinterpret_cast<float*>(partials_.data()) + static_cast<size_t>(thread) * part_floats_;
  }
  size_t SeenBegin(int layer, int unit) const {
    return static_cast<size_t>(int64_t{layer} * n_units_ + unit) * static_cast<size_t>(position_ + 1);
  }

  const HyperParams& params_;
  const int n_threads_;
  const int group_;  // query heads of a KV head
  int n_units_ = 0;  // choices of a layer: one for each KV head, or for each query head
  int unit_heads_ = 0;
  // The step.
  Dialogue* dialogue_ = nullptr;
  int64_t position_ = 0;
  int64_t n_pages_ = 0;  // that may be left out: all before the newest
  int64_t wanted_ = 0;   // pages of a choice, the newest not counted
  int first_layer_ = 0;
  int64_t stride_ = 0;
  size_t part_floats_ = 0;
  bool mark_seen_ = false;
  // The layer.
  int layer_ = 0;
  const float* q_ = nullptr;
  std::vector<float> bounds_;               // [n_heads][stride_]
  std::vector<std::vector<int32_t>> keys_;  // [n_units]: what is read, ascending
  AlignedBuffer partials_;                  // [n_threads][n_heads]
  std::vector<ThreadState> states_;
  std::vector<uint8_t> seen_;  // [n_layers][n_units][position + 1]
};

}  // namespace loopserve
