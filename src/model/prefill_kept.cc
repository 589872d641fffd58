// A layer's prefill under an eviction policy: dense attention of each KV head over what it still holds, and the
// attention that each key has from all rows, where the policy weighs by that.
#include <algorithm>

#include "src/base/clock.h"
#include "src/model/prefill_methods.h"

namespace loopserve {
namespace {

/// Rows are added up in so many parts, whatever the number of threads: the sums must not depend on it.
constexpr int64_t kParts = 8;

}  // namespace

Status PrefillKept(const PrefillLayer& layer) {
  std::vector<AttentionProblem> problems;
  for (int head = 0; head < layer.problem.n_kv_heads; ++head) problems.push_back(KvHeadProblem(layer.problem, head));
  const int64_t n_heads = std::ssize(problems);
  return layer.ForItems(PrefillItemCount(problems.front()) * n_heads, [&](int64_t item, PrefillThread& state) {
    const auto head = static_cast<size_t>(item % n_heads);
    PrefillAttentionItem(problems[head], layer.math, &layer.packed_read[head], item / n_heads, state.scratch.data());
  });
}

Status SumColumns(const PrefillLayer& layer, std::vector<std::vector<float>>* sums) {
  const int64_t n_heads = layer.problem.n_kv_heads;
  const int64_t n_rows = layer.problem.n_rows;
  std::vector<std::vector<float>> parts(static_cast<size_t>(n_heads * kParts));
  LS_RETURN_IF_ERROR(layer.ForItems(n_heads * kParts, [&](int64_t item, PrefillThread& state) {
    const auto start = Clock::now();
    const auto head = static_cast<size_t>(item % n_heads);
    const int64_t part = kParts - 1 - item / n_heads;  // the longest rows first
    const AttentionProblem problem = KvHeadProblem(layer.problem, static_cast<int>(head));
    const int64_t stride = PaddedKeys(layer.views[head].n_keys);
    state.weights.resize(static_cast<size_t>(kMaxSampledRows * stride));
    std::vector<float>& sum = parts[static_cast<size_t>(item)];
    sum.assign(static_cast<size_t>(layer.views[head].n_keys), 0.0f);
    std::vector<int64_t> rows;
    const int64_t end = n_rows * (part + 1) / kParts;
    for (int64_t first = n_rows * part / kParts; first < end; first += kMaxSampledRows) {
      rows.clear();
      for (int64_t row = first; row < std::min(end, first + kMaxSampledRows); ++row) rows.push_back(row);
      for (int h = 0; h < problem.n_heads; ++h) {
        RowWeights(problem, layer.math, layer.packed_read[head], h, rows, state.weights.data(), stride,
                   state.scratch.data());
        for (size_t i = 0; i < rows.size(); ++i) {
          const float* weights = state.weights.data() + static_cast<int64_t>(i) * stride;
          const int64_t n = problem.first_position + rows[i] + 1;
          for (int64_t t = 0; t < n; ++t) sum[static_cast<size_t>(t)] += weights[t];
        }
      }
    }
    state.selection_ms += MillisecondsSince(start);
  }));
  sums->assign(static_cast<size_t>(n_heads), {});
  for (size_t item = 0; item < parts.size(); ++item) {
    std::vector<float>& sum = (*sums)[item % static_cast<size_t>(n_heads)];
    sum.resize(parts[item].size(), 0.0f);
    for (size_t t = 0; t < sum.size(); ++t) sum[t] += parts[item][t];
  }
  return Status::Ok();
}

}  // namespace loopserve
