#include "src/model/key_pages.h"

#include <algorithm>

namespace loopserve {
namespace {

/// Room is made for so many pages at once.
constexpr int64_t kPagesAtOnce = 16;

int64_t Capacity(int64_t n_pages) { return (n_pages + kPagesAtOnce - 1) / kPagesAtOnce * kPagesAtOnce; }

}  // namespace

size_t KeyPages::BytesFor(const HyperParams& params, int first_layer, int64_t n_keys) {
  size_t n_heads = 0;
  for (int layer = first_layer; layer < params.n_layers; ++layer) {
    if (params.window(layer) == 0) n_heads += static_cast<size_t>(params.n_kv_heads);
  }
  return n_heads * static_cast<size_t>(Capacity(n_keys / kPageKeys)) * PageBoundsBytes(params.head_dim);
}

Status KeyPages::Extend(const KvCache& cache, const HyperParams& params, int first_layer, ComputeThreads& threads) {
  const int64_t end_page = cache.n_tokens() / kPageKeys;
  if (end_page <= n_pages_) return Status::Ok();
  const size_t wanted = BytesFor(params, first_layer, end_page * kPageKeys);
  if (wanted > charge_.bytes() && !charge_.Resize(cache.budget(), wanted))
    return Status(StatusCode::kResourceExhausted, "the KV budget has no room for the bounds of pages");
  n_kv_heads_ = params.n_kv_heads;
  heads_.resize(static_cast<size_t>(params.n_layers) * static_cast<size_t>(params.n_kv_heads));
  const size_t bytes = PageBoundsBytes(params.head_dim);
  Status status = threads.ForItems(int64_t{params.n_layers} * n_kv_heads_, [&](int64_t item, int) {
    const int layer = static_cast<int>(item / n_kv_heads_);
    if (layer < first_layer || params.window(layer) > 0) return;
    std::vector<std::byte>& bounds = heads_[static_cast<size_t>(item)];
    bounds.reserve(static_cast<size_t>(Capacity(end_page)) * bytes);
    bounds.resize(static_cast<size_t>(end_page) * bytes);
    const KvHeadView kv = cache.View(layer, static_cast<int>(item % n_kv_heads_), end_page * kPageKeys);
    for (int64_t page = n_pages_; page < end_page; ++page) {
      StorePageBounds(kv, page, bounds.data() + static_cast<size_t>(page) * bytes);
    }
  });
  // Heads that got longer before another failed write the same bounds again next time.
  if (status.ok()) n_pages_ = end_page;
  return status;
}

void KeyPages::Truncate(int64_t n_tokens) { n_pages_ = std::min(n_pages_, n_tokens / kPageKeys); }

}  // namespace loopserve
