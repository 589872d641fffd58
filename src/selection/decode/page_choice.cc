#include "src/selection/decode/page_choice.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>

#include "src/kernels/page_bounds.h"

namespace loopserve {
namespace {

constexpr int64_t kLeastPages = 3;

float Finite(float bound) { return std::isnan(bound) ? FLT_MAX : std::clamp(bound, -FLT_MAX, FLT_MAX); }

}  // namespace

int64_t PagesOfBudget(int64_t budget_keys) { return std::max(kLeastPages, budget_keys / kPageKeys); }

void ChoosePages(std::span<const float> bounds, int n_heads, int64_t stride, int64_t n_pages, int64_t wanted,
                 std::vector<float>* scores, std::vector<int32_t>* pages) {
  pages->resize(static_cast<size_t>(n_pages));
  std::iota(pages->begin(), pages->end(), 0);
  if (wanted >= n_pages) return;
  scores->assign(static_cast<size_t>(n_pages), -HUGE_VALF);
  for (int head = 0; head < n_heads; ++head) {
    const std::span<const float> own = bounds.subspan(static_cast<size_t>(head * stride), static_cast<size_t>(n_pages));
    float largest = -FLT_MAX;
    for (const float bound : own) largest = std::max(largest, Finite(bound));
    for (size_t page = 0; page < own.size(); ++page) {
      (*scores)[page] = std::max((*scores)[page], Finite(own[page]) - largest);
    }
  }
  std::nth_element(pages->begin(), pages->begin() + wanted, pages->end(), [&](int32_t a, int32_t b) {
    const float x = (*scores)[static_cast<size_t>(a)];
    const float y = (*scores)[static_cast<size_t>(b)];
    return x != y ? x > y : a > b;
  });
  pages->resize(static_cast<size_t>(wanted));
  std::ranges::sort(*pages);
}

}  // namespace loopserve
