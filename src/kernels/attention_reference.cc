// Softmax attention as the definition has it, in f64: what the fast kernels are held against.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "src/kernels/attention.h"

namespace loopserve {
namespace {

// One row of one head: query [head_dim], out [head_dim], keys [first, last].
void ReferenceRow(const KvHeadView& kv, const float* query, double scale, int64_t first, int64_t last, float* out) {
  const auto dim = static_cast<size_t>(kv.head_dim);
  std::vector<float> row(dim);
  std::vector<double> weights(static_cast<size_t>(last - first + 1));
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t t = first; t <= last; ++t) {
    LoadKvRow(kv.type, kv.Key(t), kv.head_dim, row.data());
    double dot = 0;
    for (size_t i = 0; i < dim; ++i) dot += double{query[i]} * double{row[i]};
    weights[static_cast<size_t>(t - first)] = dot * scale;
    max = std::max(max, dot * scale);
  }
  double sum = 0;
  std::vector<double> result(dim, 0.0);
  for (int64_t t = first; t <= last; ++t) {
    const double weight = std::exp(weights[static_cast<size_t>(t - first)] - max);
    LoadKvRow(kv.type, kv.Value(t), kv.head_dim, row.data());
    sum += weight;
    for (size_t i = 0; i < dim; ++i) result[i] += weight * double{row[i]};
  }
  for (size_t i = 0; i < dim; ++i) out[i] = static_cast<float>(result[i] / sum);
}

}  // namespace

void AttentionReference(const AttentionProblem& problem) {
  const int group = problem.n_heads / problem.n_kv_heads;
  for (int64_t row = 0; row < problem.n_rows; ++row) {
    const int64_t position = problem.first_position + row;
    const int64_t first = problem.window > 0 ? std::max<int64_t>(0, position - problem.window + 1) : 0;
    for (int head = 0; head < problem.n_heads; ++head) {
      const int64_t column = int64_t{head} * problem.head_dim;
      ReferenceRow(problem.kv[head / group], problem.q + row * problem.q_row_stride + column, double{problem.scale},
                   first, position, problem.out + row * problem.out_row_stride + column);
    }
  }
}

}  // namespace loopserve
