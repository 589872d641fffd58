#include "src/kernels/page_bounds.h"

#include <algorithm>
#include <cmath>

#include "src/base/check.h"
#include "src/kernels/attention.h"
#include "src/kernels/key_list.h"
#include "src/kernels/parted_scores.h"

namespace loopserve {

void StorePageBounds(const KvHeadView& kv, int64_t page, std::byte* bounds) {
  const int dim = kv.head_dim;
  LS_CHECK(dim <= kMaxHeadDim && (page + 1) * kPageKeys <= kv.n_keys);
  float key[kMaxHeadDim], high[kMaxHeadDim], low[kMaxHeadDim];
  LoadKvRow(kv.type, kv.Key(page * kPageKeys), dim, high);
  std::copy_n(high, dim, low);
  for (int64_t t = page * kPageKeys + 1; t < (page + 1) * kPageKeys; ++t) {
    LoadKvRow(kv.type, kv.Key(t), dim, key);
    for (int i = 0; i < dim; ++i) {
      if (std::isnan(key[i])) high[i] = low[i] = key[i];
      if (key[i] > high[i]) high[i] = key[i];  // a NaN stays
      if (key[i] < low[i]) low[i] = key[i];
    }
  }
  const size_t half = KvRowBytes(KvType::kF16, dim);
  StoreKvRow(KvType::kF16, high, dim, bounds);
  StoreKvRow(KvType::kF16, low, dim, bounds + half);
}

void SplitQuery(const float* q, int head_dim, float* target) {
  for (int i = 0; i < head_dim; ++i) {
    target[i] = q[i] < 0 ? 0.0f : q[i];  // a NaN is in both
    target[head_dim + i] = q[i] > 0 ? 0.0f : q[i];
  }
}

void ScorePages(const std::byte* bounds, int head_dim, int64_t n_pages, const float* const* split_queries,
                int n_queries, float scale, float* bounds_of, int64_t stride) {
  const KvHeadView rows =
      attention_internal::RowsView(KvType::kF16, 2 * head_dim, PageBoundsBytes(head_dim), n_pages, &bounds);
  ScoreKeys(rows, split_queries, n_queries, scale, n_pages, bounds_of, stride);
}

}  // namespace loopserve
