// Softmax attention as the definition has it, in f64: what the fast kernels are held against.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "src/kernels/attention.h"

namespace loopserve {
namespace {

// One row of one head: query [head_dim], out [head_dim], keys in any order.
void ReferenceRow(const KvHeadView& kv, const float* query, double scale, const std::vector<int64_t>& keys,
                  float* out) {
  const auto dim = static_cast<size_t>(kv.head_dim);
  std::vector<float> row(dim);
  std::vector<double> weights;
  double max = -std::numeric_limits<double>::infinity();
  for (const int64_t t : keys) {
    LoadKvRow(kv.type, kv.Key(t), kv.head_dim, row.data());
    double dot = 0;
    for (size_t i = 0; i < dim; ++i) dot += double{query[i]} * double{row[i]};
    weights.push_back(dot * scale);
    max = std::max(max, dot * scale);
  }
  double sum = 0;
  std::vector<double> result(dim, 0.0);
  for (size_t k = 0; k < keys.size(); ++k) {
    const double weight = std::exp(weights[k] - max);
    LoadKvRow(kv.type, kv.Value(keys[k]), kv.head_dim, row.data());
    sum += weight;
    for (size_t i = 0; i < dim; ++i) result[i] += weight * double{row[i]};
  }
  for (size_t i = 0; i < dim; ++i) out[i] = static_cast<float>(result[i] / sum);
}

}  // namespace

void AttentionReference(const AttentionProblem& problem) {
  MaskedAttentionReference(problem, [](int, int64_t, int64_t) { return true; });
}

void MaskedAttentionReference(const AttentionProblem& problem,
                              const std::function<bool(int head, int64_t row, int64_t key)>& attends) {
  const int group = problem.n_heads / problem.n_kv_heads;
  for (int64_t row = 0; row < problem.n_rows; ++row) {
    const int64_t position = problem.first_position + row;
    const int64_t first = problem.window > 0 ? std::max<int64_t>(0, position - problem.window + 1) : 0;
    for (int head = 0; head < problem.n_heads; ++head) {
      const int64_t column = int64_t{head} * problem.head_dim;
      std::vector<int64_t> keys;
      for (int64_t key = first; key <= position; ++key) {
        if (attends(head, row, key)) keys.push_back(key);
      }
      ReferenceRow(problem.kv[head / group], problem.q + row * problem.q_row_stride + column, double{problem.scale},
                   keys, problem.out + row * problem.out_row_stride + column);
    }
  }
}

}  // namespace loopserve
