// The ways to compute a layer's prefill attention, one file each: every one writes problem.out for all rows and heads
// of the layer, adds the pairs it computed and the time it took to choose them to the threads' counters, and measures
// held-out rows where the layer asks for it. A new method is one more function here and one more row in
// prefill_attention.cc. Errors: kResourceExhausted.
#pragma once

#include <cstdint>
#include <functional>

#include "src/model/prefill_layer.h"

namespace loopserve {

/// Every causal pair. Counts and measures nothing. (prefill_dense.cc)
Status PrefillDense(const PrefillLayer& layer);

/// Every causal pair of what each KV head holds: layer.views, which may differ in length. (prefill_kept.cc)
Status PrefillKept(const PrefillLayer& layer);

/// Not a way to compute: sums[kv_head], f32 [keys that the head holds], of the softmax weights that all rows and the
/// query heads of the KV head give each key. Counts as selection. (prefill_kept.cc)
Status SumColumns(const PrefillLayer& layer, std::vector<std::vector<float>>* sums);

/// Tiles of 16 keys, chosen for each block of 96 rows of a head by its own sampled rows. (prefill_tiles.cc)
Status PrefillTiles(const PrefillLayer& layer);

/// Vertical and slash lines, chosen once for all rows of a head by a sample of them. (prefill_lines.cc)
Status PrefillLines(const PrefillLayer& layer);

/// The same by the head's last rows, slashes widened to tiles. (prefill_minference.cc)
Status PrefillMInference(const PrefillLayer& layer);

/// Blocks of keys for each block of rows of a head, by the attention of its last rows. (prefill_flexprefill.cc)
Status PrefillFlexPrefill(const PrefillLayer& layer);

/// The same by antidiagonals of the scores of each block. (prefill_xattention.cc)
Status PrefillXAttention(const PrefillLayer& layer);

/// The first keys and a local window for every row, everything for the turn's last rows. (prefill_shape.cc)
Status PrefillShape(const PrefillLayer& layer);

/// For the methods, where the layer is measured: what was lost on one row of a head that took no part in the choice.
/// Its output is in problem.out already. held: the share of the row's softmax weights (f32 [position + 1], by key) that
/// was computed. Also measures the floor: the fewest keys that hold settings->alpha of the row's weight, and the error
/// of an output from them alone. (prefill_measure.cc)
void MeasureRow(const PrefillLayer& layer, int head, int64_t row,
                const std::function<float(const float* weights)>& held, PrefillThread& state);

/// MeasureRow for one row of `part` that is not among the turn's last n_deciding_rows; nothing if it has none.
/// held(weights, position): as there, with the row's position.
void MeasureHeldOut(const PrefillLayer& layer, const RowBlock& part, int64_t n_deciding_rows,
                    const std::function<float(const float* weights, int64_t position)>& held, PrefillThread& state);

}  // namespace loopserve
