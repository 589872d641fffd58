#include <algorithm>
#include <numeric>

#include "src/base/clock.h"
#include "src/model/prefill_blocks.h"
#include "src/model/prefill_methods.h"
#include "src/selection/flexprefill/flex_choice.h"

namespace loopserve {
namespace {

FlexSettings SettingsOf(const PrefillSettings& settings) {
  return {.gamma = settings.cover, .tau = settings.tau, .min_budget = settings.min_budget};
}

/// Mean key of every block of one KV head, f32 [blocks, head_dim].
std::vector<float> MeanKeys(const KvHeadView& kv) {
  const auto dim = static_cast<size_t>(kv.head_dim);
  std::vector<float> means(static_cast<size_t>((kv.n_keys + kFlexBlock - 1) / kFlexBlock) * dim);
  std::vector<float> key(dim);
  for (int64_t t = 0; t < kv.n_keys; ++t) {
    LoadKvRow(kv.type, kv.Key(t), kv.head_dim, key.data());
    float* mean = means.data() + static_cast<size_t>(t / kFlexBlock) * dim;
    const auto n = static_cast<float>(std::min(kFlexBlock, kv.n_keys - t / kFlexBlock * kFlexBlock));
    for (size_t i = 0; i < dim; ++i) mean[i] += key[i] / n;
  }
  return means;
}

/// Mean query of rows [first, last) of a head, f32 [head_dim].
void MeanQuery(const AttentionProblem& problem, int head, int64_t first, int64_t last, float* mean) {
  std::fill_n(mean, problem.head_dim, 0.0f);
  for (int64_t row = first; row < last; ++row) {
    const float* q = problem.q + row * problem.q_row_stride + int64_t{head} * problem.head_dim;
    for (int i = 0; i < problem.head_dim; ++i) mean[i] += q[i] / static_cast<float>(last - first);
  }
}

FlexChoice ChooseHeadBlocks(const PrefillLayer& layer, int head, std::span<const float> mean_keys,
                            PrefillThread& state) {
  const AttentionProblem& problem = layer.problem;
  std::vector<int64_t> rows(static_cast<size_t>(std::min(kFlexRows, problem.n_rows)));
  std::iota(rows.begin(), rows.end(), problem.n_rows - static_cast<int64_t>(rows.size()));
  const int64_t stride = layer.WeightsOfRows(head, rows, state);
  std::vector<float> mean_last_query(static_cast<size_t>(problem.head_dim));
  MeanQuery(problem, head, rows.front(), problem.n_rows, mean_last_query.data());
  const int64_t first_block = problem.first_position / kFlexBlock;
  const int64_t n_blocks = (layer.n_keys() + kFlexBlock - 1) / kFlexBlock - first_block;
  std::vector<float> mean_queries(static_cast<size_t>(n_blocks * problem.head_dim));
  for (int64_t block = 0; block < n_blocks; ++block) {
    const int64_t first = (first_block + block) * kFlexBlock - problem.first_position;
    MeanQuery(problem, head, std::max<int64_t>(0, first), std::min(problem.n_rows, first + kFlexBlock),
              mean_queries.data() + block * problem.head_dim);
  }
  for (int64_t& row : rows) row += problem.first_position;
  FlexProblem choice;
  choice.first_position = problem.first_position;
  choice.n_keys = layer.n_keys();
  choice.rows = {rows, state.weights.data(), stride};
  choice.head_dim = problem.head_dim;
  choice.scale = problem.scale;
  choice.mean_last_query = mean_last_query;
  choice.mean_queries = mean_queries;
  choice.mean_keys = mean_keys;
  return ChooseFlexBlocks(choice, SettingsOf(*layer.settings));
}

}  // namespace

Status PrefillFlexPrefill(const PrefillLayer& layer) {
  const int64_t first_block = layer.problem.first_position / kFlexBlock;
  std::vector<std::vector<float>> mean_keys(static_cast<size_t>(layer.problem.n_kv_heads));
  std::vector<FlexChoice> choices(static_cast<size_t>(layer.problem.n_heads));
  LS_RETURN_IF_ERROR(layer.ForItems(layer.problem.n_kv_heads, [&](int64_t kv_head, PrefillThread& state) {
    const auto start = Clock::now();
    mean_keys[static_cast<size_t>(kv_head)] = MeanKeys(layer.problem.kv[kv_head]);
    state.selection_ms += MillisecondsSince(start);
  }));
  LS_RETURN_IF_ERROR(layer.ForItems(layer.problem.n_heads, [&](int64_t head, PrefillThread& state) {
    const auto start = Clock::now();
    const int h = static_cast<int>(head);
    choices[static_cast<size_t>(head)] =
        ChooseHeadBlocks(layer, h, mean_keys[static_cast<size_t>(layer.kv_head(h))], state);
    state.selection_ms += MillisecondsSince(start);
  }));
  BlockMethod method;
  method.block_tokens = kFlexBlock;
  method.n_deciding_rows = kFlexRows;
  method.choose = [&](int head, int64_t block, PrefillThread& state) {
    state.blocks = choices[static_cast<size_t>(head)].blocks[static_cast<size_t>(block - first_block)];
  };
  return AttendBlocks(layer, method);
}

}  // namespace loopserve
