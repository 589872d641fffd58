// Looks at the attention of one layer of a pass for AttentionInspector (loopserve/inspect.h): samples rows, asks
// selection/ for the paper's lines, and measures both. Stands beside prefill's attention and never touches its numbers;
// the arithmetic is always f32, so that the weights shown are the model's.
// Thread rule: one owner; computes on the given threads.
//
// Workspace: one layer's packed keys and values, and on every thread the weights of the sampled rows (rows x keys,
// f32).
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "loopserve/inspect.h"
#include "loopserve/status.h"
#include "src/kernels/attention.h"
#include "src/model/compute_threads.h"

namespace loopserve {

/// Adds the layer's figures to `turn`, and the map if the options ask for one of its heads. problem: the queries and
/// keys of all rows of the pass (at least kMinInspectedRows); `out` is not written, the window must be 0. before: the
/// turn before, may be null. kResourceExhausted; kCancelled once `cancel` (may be null) is set.
Status InspectLayer(const AttentionProblem& problem, int layer, const InspectOptions& options,
                    const TurnAttention* before, const std::atomic<bool>* cancel, ComputeThreads& threads,
                    TurnAttention* turn);

/// How few of the weights (not negative, finite) add up to `share` of their sum; reorders them. 0 without any weight.
int64_t FewestHolding(std::span<float> weights, double share);

}  // namespace loopserve
