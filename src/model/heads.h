// What happens to the heads of a row between projection and attention: the norms of Q and K where the family has them,
// and RoPE. Thread rule: pure functions.
#pragma once

#include <cstdint>

#include "src/model/model.h"

namespace loopserve {

/// In place. turns: the row's, as RopeTable has them, of this layer's kind. q: f32 [n_heads][head_dim].
void FinishQueries(const Model& model, int layer, const float* turns, float* q);
/// k: f32 [n_kv_heads][head_dim].
void FinishKeys(const Model& model, int layer, const float* turns, float* k);

}  // namespace loopserve
