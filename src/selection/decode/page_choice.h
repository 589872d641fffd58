// Which pages of keys Quest reads for a token (Tang et al., arXiv 2406.10774): the newest page, and of the others those
// whose keys could score highest. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// Pages that a budget of keys allows, the newest page among them: a budget of less than three pages reads three, as
/// in the published code.
int64_t PagesOfBudget(int64_t budget_keys);

/// The `wanted` pages of [0, n_pages) that may be heaviest, ascending, by bounds[h * stride + page] of their keys'
/// scores for each of n_heads queries: by the largest, over the queries, of a bound less the query's largest one, so
/// that a query whose scores are high throughout does not choose for the others. (With one query: by the bound, as
/// published.) Among equals the later page. A bound that is NaN is the largest of all. `scores` is reused memory.
void ChoosePages(std::span<const float> bounds, int n_heads, int64_t stride, int64_t n_pages, int64_t wanted,
                 std::vector<float>* scores, std::vector<int32_t>* pages);

}  // namespace loopserve
