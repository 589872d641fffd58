// The bounds of a dialogue's keys, page by page of 16: what a decode step of Quest looks through to find the keys that
// may matter to it (kernels/page_bounds.h). A page gets its bounds when a prefill ends, and in an answer whenever it is
// whole; they never change. They count in the KV budget. A fork makes them anew from its cache.
// Thread rule: one owner; Extend works on the compute threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "loopserve/status.h"
#include "src/kernels/page_bounds.h"
#include "src/kvcache/kv_cache.h"
#include "src/model/compute_threads.h"
#include "src/model/hyper_params.h"

namespace loopserve {

class KeyPages {
 public:
  /// Pages [0, n_pages()) have bounds.
  int64_t n_pages() const { return n_pages_; }
  /// Of page 0 of a layer that was extended, the others behind it: [n_pages][PageBoundsBytes].
  const std::byte* bounds(int layer, int kv_head) const {
    return heads_[static_cast<size_t>(int64_t{layer} * n_kv_heads_ + kv_head)].data();
  }

  /// Bounds of the whole pages that have none, of layers from first_layer on (the same in every call) without a sliding
  /// window. kResourceExhausted (the cache's budget too) leaves what there was.
  Status Extend(const KvCache& cache, const HyperParams& params, int first_layer, ComputeThreads& threads);
  /// Forgets pages that are not whole any more when only n_tokens tokens are left.
  void Truncate(int64_t n_tokens);
  /// What was taken of the KV budget, and what bounds of so many keys take.
  size_t bytes() const { return charge_.bytes(); }
  static size_t BytesFor(const HyperParams& params, int first_layer, int64_t n_keys);

 private:
  KvCharge charge_;
  int n_kv_heads_ = 0;
  int64_t n_pages_ = 0;
  std::vector<std::vector<std::byte>> heads_;  // [n_layers * n_kv_heads]; empty for layers without pages
};

}  // namespace loopserve
