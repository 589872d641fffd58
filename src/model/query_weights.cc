#include "src/model/query_weights.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "src/kernels/key_list.h"
#include "src/kernels/row_scores.h"

namespace loopserve {

void SumQueryWeights(const KvHeadView& kv, std::span<const ObservingQuery> queries, float scale,
                     std::vector<float>* scores, std::vector<float>* weight) {
  const int64_t stride = (kv.n_keys + kChoiceTileKeys - 1) / kChoiceTileKeys * kChoiceTileKeys;
  scores->resize(static_cast<size_t>(kMaxScoredQueries * stride));
  weight->assign(static_cast<size_t>(kv.n_keys), 0.0f);
  for (size_t first = 0; first < queries.size(); first += kMaxScoredQueries) {
    const auto part = queries.subspan(first, std::min<size_t>(kMaxScoredQueries, queries.size() - first));
    const float* q[kMaxScoredQueries];
    for (size_t i = 0; i < part.size(); ++i) q[i] = part[i].q;
    ScoreKeys(kv, q, static_cast<int>(part.size()), scale, kv.n_keys, scores->data(), stride);
    for (size_t i = 0; i < part.size(); ++i) {
      float* row = scores->data() + static_cast<int64_t>(i) * stride;
      const int64_t end = part[i].n_keys;
      std::fill(row + end, row + stride, -HUGE_VALF);
      const float largest = LargestScore(row, static_cast<size_t>(end), -FLT_MAX);
      const float share = 1.0f / ExpInPlace(row, static_cast<size_t>(stride), largest);
      for (int64_t t = 0; t < end; ++t) (*weight)[static_cast<size_t>(t)] += share * row[t];
    }
  }
}

}  // namespace loopserve
