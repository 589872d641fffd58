#include "src/selection/eviction/adakv.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "src/base/check.h"
#include "src/selection/eviction/snapkv.h"

namespace loopserve {
namespace {

/// Older candidates of a head, heaviest first, of equal ones the later first.
struct RankedHead {
  std::vector<float> score;    // pooled, by candidate
  std::vector<int32_t> order;  // of the candidates
};

RankedHead Rank(std::span<const float> weight, const AdaKvSettings& settings) {
  const auto n_older = static_cast<size_t>(std::max<int64_t>(0, static_cast<int64_t>(weight.size()) - settings.window));
  RankedHead head;
  head.score = PoolByMaximum(weight.first(n_older), settings.kernel);
  head.order.resize(n_older);
  std::iota(head.order.begin(), head.order.end(), 0);
  std::ranges::sort(head.order, [&](int32_t a, int32_t b) {
    const float x = head.score[static_cast<size_t>(a)], y = head.score[static_cast<size_t>(b)];
    return x != y ? x > y : a > b;
  });
  return head;
}

/// Adds n to the counts, each to the head whose next candidate is heaviest (of equal ones the first head).
void TakeHeaviest(std::span<const RankedHead> heads, int64_t n, std::vector<int64_t>* counts) {
  for (; n > 0; --n) {
    size_t best = heads.size();
    float largest = 0;
    for (size_t h = 0; h < heads.size(); ++h) {
      const auto next = static_cast<size_t>((*counts)[h]);
      if (next >= heads[h].order.size()) continue;
      const float score = heads[h].score[static_cast<size_t>(heads[h].order[next])];
      if (best < heads.size() && !(score > largest)) continue;
      best = h;
      largest = score;
    }
    LS_CHECK(best < heads.size());
    ++(*counts)[best];
  }
}

}  // namespace

std::vector<std::vector<int32_t>> ChooseAdaKv(std::span<const std::vector<float>> weights,
                                              const AdaKvSettings& settings) {
  LS_CHECK(settings.budget >= settings.window && settings.alpha >= 0 && settings.alpha <= 1);
  std::vector<RankedHead> heads;
  int64_t n_older = 0;
  for (const std::vector<float>& weight : weights) {
    heads.push_back(Rank(weight, settings));
    n_older += std::ssize(heads.back().order);
  }
  const int64_t base = settings.budget - settings.window;
  const int64_t total = std::min(base * std::ssize(heads), n_older);
  std::vector<int64_t> counts(heads.size(), 0);
  TakeHeaviest(heads, total, &counts);
  int64_t left = total;
  for (size_t h = 0; h < heads.size(); ++h) {
    const double share =
        (1 - settings.alpha) * static_cast<double>(counts[h]) + settings.alpha * static_cast<double>(base);
    // A whole number that came out a little below itself stays what it is.
    counts[h] = std::min<int64_t>(std::ssize(heads[h].order), static_cast<int64_t>(std::floor(share + 1e-9)));
    left -= counts[h];
  }
  LS_CHECK(left >= 0);  // the shares add up to `total` before they are rounded down
  TakeHeaviest(heads, left, &counts);
  std::vector<std::vector<int32_t>> kept(heads.size());
  for (size_t h = 0; h < heads.size(); ++h) {
    const auto count = static_cast<ptrdiff_t>(counts[h]);
    kept[h].assign(heads[h].order.begin(), heads[h].order.begin() + count);
    std::ranges::sort(kept[h]);
    for (size_t t = heads[h].order.size(); t < weights[h].size(); ++t) kept[h].push_back(static_cast<int32_t>(t));
  }
  return kept;
}

}  // namespace loopserve
