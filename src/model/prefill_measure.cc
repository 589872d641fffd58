// What a choice of pairs costs in exactness, on a row at a time: the reference of every share and error that
// SyncStats reports. Not timed as attention; one row for each block of rows keeps it a few percent of dense attention.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "src/base/clock.h"
#include "src/kernels/key_list.h"
#include "src/model/prefill_methods.h"
#include "src/selection/floor/key_floor.h"
#include "src/selection/row_sample.h"

namespace loopserve {
namespace {

float RelativeError(const float* actual, const float* expected, int n) {
  double difference = 0, norm = 0;
  for (int i = 0; i < n; ++i) {
    difference += (double{actual[i]} - expected[i]) * (double{actual[i]} - expected[i]);
    norm += double{expected[i]} * expected[i];
  }
  return norm > 0 ? static_cast<float>(std::sqrt(difference / norm)) : 0.0f;
}

/// The output by dense attention, f32 [head_dim] in state.row_out, in the arithmetic of the row that is measured.
const float* DenseRow(const PrefillLayer& layer, int head, int64_t row, PrefillThread& state) {
  AttentionProblem dense = layer.problem;
  state.row_out.resize(static_cast<size_t>(dense.q_row_stride));
  dense.out = state.row_out.data();
  dense.out_row_stride = 0;
  state.row_keys.resize(static_cast<size_t>(ChoiceTiles(dense.first_position + row + 1)));
  std::iota(state.row_keys.begin(), state.row_keys.end(), 0);
  AttendTiles(dense, layer.math, layer.packed_of(head), {head, row, 1}, state.row_keys, state.scratch.data());
  return state.row_out.data() + int64_t{head} * dense.head_dim;
}

/// The output over state.row_keys alone, f32 [head_dim] from the cache as it is stored.
std::vector<float> ListedRow(const PrefillLayer& layer, int head, int64_t row, PrefillThread& state) {
  const AttentionProblem& problem = layer.problem;
  const float* q = problem.q + row * problem.q_row_stride + int64_t{head} * problem.head_dim;
  state.partial.resize(KeyListPartialFloats(problem.head_dim));
  AttendKeyList(problem.kv[layer.kv_head(head)], q, problem.scale, state.row_keys.data(),
                static_cast<int64_t>(state.row_keys.size()), state.partial.data());
  std::vector<float> out(static_cast<size_t>(problem.head_dim));
  for (size_t i = 0; i < out.size(); ++i) out[i] = state.partial[kKeyListHeader + i] / state.partial[1];
  return out;
}

/// Both outputs by the same arithmetic: what differs is the keys that are missing.
void MeasureFloor(const PrefillLayer& layer, int head, int64_t row, PrefillThread& state) {
  const int64_t n_causal = layer.problem.first_position + row + 1;
  FewestKeys({state.row_weights.data(), static_cast<size_t>(n_causal)}, layer.settings->alpha, &state.row_keys);
  state.floor_keys += static_cast<double>(state.row_keys.size());
  state.floor_causal_keys += static_cast<double>(n_causal);
  const std::vector<float> fewest = ListedRow(layer, head, row, state);
  state.row_keys.resize(static_cast<size_t>(n_causal));
  std::iota(state.row_keys.begin(), state.row_keys.end(), 0);
  const std::vector<float> all = ListedRow(layer, head, row, state);
  state.floor_error.push_back(RelativeError(fewest.data(), all.data(), layer.problem.head_dim));
}

}  // namespace

void MeasureRow(const PrefillLayer& layer, int head, int64_t row,
                const std::function<float(const float* weights)>& held, PrefillThread& state) {
  const auto start = Clock::now();
  const AttentionProblem& problem = layer.problem;
  const int64_t stride = PaddedKeys(problem.first_position + row + 1);
  state.row_weights.resize(static_cast<size_t>(stride));
  RowWeights(problem, layer.math, layer.packed_of(head), head, {&row, 1}, state.row_weights.data(), stride,
             state.scratch.data());
  state.coverage.push_back(held(state.row_weights.data()));
  const float* out = problem.out + row * problem.out_row_stride + int64_t{head} * problem.head_dim;
  state.error.push_back(RelativeError(out, DenseRow(layer, head, row, state), problem.head_dim));
  MeasureFloor(layer, head, row, state);
  state.measure_ms += MillisecondsSince(start);
}

void MeasureHeldOut(const PrefillLayer& layer, const RowBlock& part, int64_t n_deciding_rows,
                    const std::function<float(const float* weights, int64_t position)>& held, PrefillThread& state) {
  const int64_t n_free = std::min<int64_t>(part.n_rows, layer.problem.n_rows - n_deciding_rows - part.first_row);
  if (n_free <= 0) return;
  const int64_t row =
      HeldOutRow({layer.settings->seed, layer.index, part.head, part.first_row}, part.first_row, n_free, {});
  const int64_t position = layer.problem.first_position + row;
  MeasureRow(
      layer, part.head, row, [&](const float* weights) { return held(weights, position); }, state);
}

}  // namespace loopserve
