#include "src/selection/decode/key_choice.h"

#include <algorithm>
#include <functional>

namespace loopserve {

void ChooseKeys(std::span<const float> weight, int64_t first_kept, int64_t budget, std::vector<float>* scratch,
                std::vector<uint8_t>* chosen) {
  const auto n = static_cast<int64_t>(weight.size());
  first_kept = std::clamp<int64_t>(first_kept, std::max<int64_t>(0, n - budget), n);
  chosen->assign(weight.size(), 0);
  std::fill(chosen->begin() + static_cast<ptrdiff_t>(first_kept), chosen->end(), uint8_t{1});
  const int64_t wanted = std::min(budget - (n - first_kept), first_kept);
  if (wanted <= 0) return;
  if (wanted == first_kept) {
    std::fill(chosen->begin(), chosen->end(), uint8_t{1});
    return;
  }
  scratch->resize(static_cast<size_t>(first_kept));
  std::transform(weight.begin(), weight.begin() + static_cast<ptrdiff_t>(first_kept), scratch->begin(),
                 [](float x) { return x > 0 ? x : 0.0f; });
  std::vector<float>& sorted = *scratch;
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(wanted - 1), sorted.end(), std::greater<>());
  const float threshold = sorted[static_cast<size_t>(wanted - 1)];
  const auto above = [&](int64_t t) { return weight[static_cast<size_t>(t)] > threshold; };
  int64_t ties = wanted;  // places left for keys of exactly the threshold
  for (int64_t t = 0; t < first_kept; ++t) ties -= above(t) ? 1 : 0;
  for (int64_t t = first_kept - 1; t >= 0; --t) {
    const float x = weight[static_cast<size_t>(t)];
    const bool is_tie = !above(t) && (x > 0 ? x : 0.0f) == threshold && ties > 0;
    if (is_tie) --ties;
    (*chosen)[static_cast<size_t>(t)] = above(t) || is_tie ? 1 : 0;
  }
}

}  // namespace loopserve
