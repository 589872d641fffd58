#include <memory>

#include "src/base/clock.h"
#include "src/kernels/antidiagonal.h"
#include "src/model/prefill_blocks.h"
#include "src/model/prefill_methods.h"
#include "src/selection/xattention/block_choice.h"

namespace loopserve {
namespace {

/// Key blocks for one block of rows, by the weights of its row groups.
void ChooseByGroups(const PrefillLayer& layer, const GroupedKeys& keys, int head, int64_t block, PrefillThread& state) {
  const int64_t groups_per_block = layer.settings->block / keys.stride();
  const int64_t first = std::max(block * groups_per_block, layer.problem.first_position / keys.stride());
  const int64_t end = std::min((block + 1) * groups_per_block, keys.n_groups());
  const int64_t stride = PaddedKeys(end);
  state.weights.resize(static_cast<size_t>(kMaxSampledRows * stride));
  state.mass.assign(static_cast<size_t>(block + 1), 0.0f);
  for (int64_t group = first; group < end; group += kMaxSampledRows) {
    const int n = static_cast<int>(std::min<int64_t>(kMaxSampledRows, end - group));
    GroupWeights(layer.problem, layer.math, keys, head, group, n, state.weights.data(), stride, state.scratch.data());
    for (int64_t i = 0; i < n; ++i) {
      AddGroupWeights({state.weights.data() + i * stride, static_cast<size_t>(group + i + 1)}, groups_per_block,
                      state.mass);
    }
  }
  state.blocks = ChooseBlocks(state.mass, layer.settings->cover);
}

}  // namespace

Status PrefillXAttention(const PrefillLayer& layer) {
  std::vector<std::unique_ptr<GroupedKeys>> keys(static_cast<size_t>(layer.problem.n_kv_heads));
  LS_RETURN_IF_ERROR(layer.ForItems(layer.problem.n_kv_heads, [&](int64_t kv_head, PrefillThread& state) {
    const auto start = Clock::now();
    keys[static_cast<size_t>(kv_head)] =
        std::make_unique<GroupedKeys>(layer.problem.kv[kv_head], layer.settings->stride, layer.math);
    state.selection_ms += MillisecondsSince(start);
  }));
  BlockMethod method;
  method.block_tokens = layer.settings->block;
  method.choose = [&](int head, int64_t block, PrefillThread& state) {
    ChooseByGroups(layer, *keys[static_cast<size_t>(layer.kv_head(head))], head, block, state);
  };
  return AttendBlocks(layer, method);
}

}  // namespace loopserve
