// One head's attention over a turn, pooled into an AttentionMap (loopserve/inspect.h). Every row is computed: for one
// head of one layer that is a small part of a pass.
// Thread rule: one owner; computes on the given threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "loopserve/inspect.h"
#include "loopserve/status.h"
#include "src/kernels/attention.h"
#include "src/model/compute_threads.h"
#include "src/selection/lines/line_mask.h"

namespace loopserve {

/// The head's chosen lines.
LineMask MaskOf(int64_t n_keys, const HeadAttention& head);

/// packed: the KV head's keys in AttentionMath::kF32; lines: the head's choice. kResourceExhausted.
Status DrawAttentionMap(const AttentionProblem& problem, const std::byte* packed, int layer, int head,
                        const HeadAttention& lines, int max_cells, ComputeThreads& threads, AttentionMap* map);

}  // namespace loopserve
