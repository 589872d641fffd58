// Pages of neighbouring keys by their bounds (Quest, arXiv 2406.10774): of every element the largest and the least that
// a key of the page has. What a query's score of any key of the page cannot exceed is then one dot product: of the
// query's positive part with the largest and of its negative part with the least elements. Bounds lie in memory as
// cached f16 rows of twice the head's size do, so that the kernel which scores keys scores pages.
// Thread rule: pure functions; nothing here allocates.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/kernels/kv_view.h"

namespace loopserve {

/// Keys of a page.
inline constexpr int64_t kPageKeys = 16;

/// Bytes of a page's bounds: f16 [2 * head_dim].
constexpr size_t PageBoundsBytes(int head_dim) { return static_cast<size_t>(head_dim) * 4; }

/// The bounds of keys [kPageKeys * page, kPageKeys * (page + 1)): largest elements, then least. Exact of f16 keys;
/// those of q8_0 keys are rounded to the nearest f16. An element that is NaN in any key is NaN in both.
void StorePageBounds(const KvHeadView& kv, int64_t page, std::byte* bounds);

/// The form of a query that pages are scored with, f32 [2 * head_dim]: q where positive, then q where negative, else 0.
void SplitQuery(const float* q, int head_dim, float* target);

/// Upper bounds, in units of log2, of the scores of up to kMaxScoredQueries (key_list.h) split queries in pages
/// [0, n_pages) of `bounds`: bounds_of[i * stride + page] = scale * log2(e) * sum over d of
/// max(q[i][d] * largest[d], q[i][d] * least[d]). stride >= n_pages rounded up to 4.
void ScorePages(const std::byte* bounds, int head_dim, int64_t n_pages, const float* const* split_queries,
                int n_queries, float scale, float* bounds_of, int64_t stride);

}  // namespace loopserve
