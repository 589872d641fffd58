// Which keys some queries attend: their softmax weights, added up. What choices by observed attention are made of.
// Thread rule: pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/kernels/kv_view.h"

namespace loopserve {

struct ObservingQuery {
  const float* q = nullptr;  ///< f32 [head_dim], of one query head
  int64_t n_keys = 0;        ///< of the view's keys it attends the first
};

/// weight[t] = sum over the queries of their softmax weight of key t; f32 [kv.n_keys]. scores: reused memory.
void SumQueryWeights(const KvHeadView& kv, std::span<const ObservingQuery> queries, float scale,
                     std::vector<float>* scores, std::vector<float>* weight);

}  // namespace loopserve
