#include "src/model/working_set.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/model/query_weights.h"
#include "src/selection/decode/key_choice.h"

namespace loopserve {
namespace {

HeadWorkingSet& HeadOf(Dialogue& dialogue, int layer, int kv_head) {
  const int n_kv_heads = dialogue.cache.layout().n_kv_heads;
  return dialogue.working_sets.heads[static_cast<size_t>(int64_t{layer} * n_kv_heads + kv_head)];
}

/// Copies key and value `key` of `kv` to place `slot`.
void CopyRow(const KvHeadView& kv, int64_t key, int64_t slot, HeadWorkingSet& head) {
  std::byte* target = head.block + static_cast<size_t>(slot) * kv.row_bytes;
  std::memcpy(target, kv.Key(key), kv.row_bytes);
  std::memcpy(target + static_cast<size_t>(head.capacity) * kv.row_bytes, kv.Value(key), kv.row_bytes);
}

}  // namespace

struct WorkingSetKeeper::ThreadState {
  std::vector<ObservingQuery> queries;
  std::vector<float> scores;
  std::vector<float> weight;  // [n_keys]
  std::vector<float> scratch;
  std::vector<uint8_t> chosen;
  std::vector<int32_t> free_slots;
};

WorkingSetKeeper::WorkingSetKeeper(const Model& model, ComputeThreads& threads)
    : model_(model), threads_(threads), states_(static_cast<size_t>(threads.n_threads())) {}

WorkingSetKeeper::~WorkingSetKeeper() = default;

double WorkingSetKeeper::KeysReadToChoose(const Dialogue& dialogue) {
  const auto n_heads = static_cast<double>(dialogue.working_sets.n_renewed * dialogue.cache.layout().n_kv_heads);
  return 0.5 * n_heads * static_cast<double>(dialogue.cache.n_tokens());
}

bool WorkingSetKeeper::IsSparse(const Dialogue& dialogue, int layer) const {
  return dialogue.working_sets.active() && model_.params().window(layer) == 0;
}

Status WorkingSetKeeper::Begin(Dialogue& dialogue) {
  dialogue.working_sets.Clear();
  Status status = BeginSparse(dialogue);
  if (!status.ok()) dialogue.working_sets.Clear();
  return status;
}

Status WorkingSetKeeper::BeginSparse(Dialogue& dialogue) {
  const DecodeSettings& settings = dialogue.policy.decode();
  const HyperParams& p = model_.params();
  try {
    dialogue.working_sets.n_tokens_before = dialogue.cache.n_tokens();
    dialogue.working_sets.heads.resize(static_cast<size_t>(p.n_layers) * static_cast<size_t>(p.n_kv_heads));
    std::vector<Task> tasks;
    for (int layer = 0; layer < p.n_layers; ++layer) {
      for (int head = 0; IsSparse(dialogue, layer) && head < p.n_kv_heads; ++head) tasks.push_back({layer, head});
    }
    dialogue.working_sets.n_renewed = std::ssize(tasks) / p.n_kv_heads;
    const int64_t capacity = settings.budget + settings.interval + 1;
    const size_t head_bytes = 2 * static_cast<size_t>(capacity) * dialogue.cache.layout().row_bytes();
    if (!dialogue.working_sets.charge.Resize(dialogue.cache.budget(), tasks.size() * head_bytes))
      return Status(StatusCode::kResourceExhausted, "the KV budget has no room for the working sets of an answer");
    for (const Task& task : tasks) {
      HeadWorkingSet& head = HeadOf(dialogue, task.layer, task.kv_head);
      head.budget = settings.budget;
      head.capacity = capacity;
      head.rows.resize(head_bytes);
      head.block = head.rows.data();
      head.keys.reserve(static_cast<size_t>(head.capacity));
    }
    return ForTasks(tasks.size(), [&](size_t i, ThreadState& state) {
      SumNewestWeights(dialogue, tasks[i], state);
      FillHead(dialogue, tasks[i], state);
    });
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for the working sets of an answer");
  }
}

Status WorkingSetKeeper::Renew(Dialogue& dialogue, double* selection_ms) {
  WorkingSets& sets = dialogue.working_sets;
  if (!sets.active()) return Status::Ok();
  const HyperParams& p = model_.params();
  const int interval = dialogue.policy.decode().interval;
  // By the tokens that are there, not by calls: a step that failed and is made again finds the same layers' turn.
  const int64_t step = dialogue.cache.n_tokens() - sets.n_tokens_before + 1;
  std::vector<Task> tasks;
  for (int layer = 0; layer < p.n_layers; ++layer) {
    // Layer l has its turn at steps that leave the same rest as l * interval / n_layers.
    const int turn = static_cast<int>(int64_t{layer} * interval / p.n_layers);
    if (!IsSparse(dialogue, layer) || step % interval != turn) continue;
    for (int head = 0; head < p.n_kv_heads; ++head) tasks.push_back({layer, head});
  }
  sets.n_renewed = std::ssize(tasks) / p.n_kv_heads;
  if (tasks.empty()) return Status::Ok();
  const auto start = Clock::now();
  Status status = ForTasks(tasks.size(), [&](size_t i, ThreadState& state) {
    SumNewestWeights(dialogue, tasks[i], state);
    FillHead(dialogue, tasks[i], state);
  });
  *selection_ms += MillisecondsSince(start);
  return status;
}

Status WorkingSetKeeper::ForTasks(size_t n, const std::function<void(size_t, ThreadState&)>& body) {
  return threads_.ForItems(static_cast<int64_t>(n), [&](int64_t i, int thread) {
    body(static_cast<size_t>(i), states_[static_cast<size_t>(thread)]);
  });
}

void WorkingSetKeeper::SumWeights(const Dialogue& dialogue, const Task& task, int64_t first_position,
                                  int64_t last_position, ThreadState& state) {
  const HyperParams& p = model_.params();
  const int group = p.n_heads / p.n_kv_heads;
  const int64_t n_keys = dialogue.cache.n_tokens();
  state.queries.clear();
  for (int64_t position = first_position; position <= last_position; ++position) {
    const float* q = dialogue.queries.Find(task.layer, position);
    if (q == nullptr) continue;
    for (int head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head) {
      state.queries.push_back({q + int64_t{head} * p.head_dim, position + 1});
    }
  }
  SumQueryWeights(dialogue.cache.View(task.layer, task.kv_head, n_keys), state.queries, p.attention_scale,
                  &state.scores, &state.weight);
}

void WorkingSetKeeper::SumNewestWeights(const Dialogue& dialogue, const Task& task, ThreadState& state) {
  const int64_t n_keys = dialogue.cache.n_tokens();
  SumWeights(dialogue, task, n_keys - dialogue.policy.decode().queries, n_keys - 1, state);
}

void WorkingSetKeeper::FillHead(Dialogue& dialogue, const Task& task, ThreadState& state) {
  const int64_t n_keys = dialogue.cache.n_tokens();
  HeadWorkingSet& head = HeadOf(dialogue, task.layer, task.kv_head);
  const DecodeSettings& settings = dialogue.policy.decode();
  const int64_t newest = std::min<int64_t>(settings.interval, head.budget / 2);
  ChooseKeys(state.weight, n_keys - newest, head.budget, &state.scratch, &state.chosen);
  // What stays keeps its place; the rest is replaced: mostly few rows are copied.
  const KvHeadView kv = dialogue.cache.View(task.layer, task.kv_head, n_keys);
  state.free_slots.clear();
  for (size_t slot = 0; slot < head.keys.size(); ++slot) {
    uint8_t& is_chosen = state.chosen[static_cast<size_t>(head.keys[slot])];
    if (is_chosen == 0) state.free_slots.push_back(static_cast<int32_t>(slot));
    is_chosen = 0;  // it is there already
  }
  size_t free = 0;
  for (int64_t t = 0; t < n_keys; ++t) {
    if (state.chosen[static_cast<size_t>(t)] == 0) continue;
    if (free < state.free_slots.size()) {
      const int32_t slot = state.free_slots[free++];
      head.keys[static_cast<size_t>(slot)] = static_cast<int32_t>(t);
      CopyRow(kv, t, slot, head);
    } else {
      CopyRow(kv, t, static_cast<int64_t>(head.keys.size()), head);
      head.keys.push_back(static_cast<int32_t>(t));
    }
  }
  // Places that are left over are filled from the end.
  for (size_t i = state.free_slots.size(); i > free; --i) {
    const auto slot = static_cast<size_t>(state.free_slots[i - 1]);
    const size_t last = head.keys.size() - 1;
    if (slot != last) {
      head.keys[slot] = head.keys[last];
      CopyRow(kv, head.keys[slot], static_cast<int64_t>(slot), head);
    }
    head.keys.pop_back();
  }
  LS_CHECK(static_cast<int64_t>(head.keys.size()) <= head.capacity);
}

void WorkingSetKeeper::Append(Dialogue& dialogue, int layer, int64_t position) {
  const KvLayout& layout = dialogue.cache.layout();
  for (int kv_head = 0; kv_head < layout.n_kv_heads; ++kv_head) {
    HeadWorkingSet& head = HeadOf(dialogue, layer, kv_head);
    LS_CHECK(static_cast<int64_t>(head.keys.size()) < head.capacity);
    const KvHeadView kv = dialogue.cache.View(layer, kv_head, position + 1);
    CopyRow(kv, position, static_cast<int64_t>(head.keys.size()), head);
    head.keys.push_back(static_cast<int32_t>(position));
  }
}

KvHeadView WorkingSetKeeper::View(const Dialogue& dialogue, int layer, int kv_head) {
  const KvLayout& layout = dialogue.cache.layout();
  const HeadWorkingSet& head =
      dialogue.working_sets.heads[static_cast<size_t>(int64_t{layer} * layout.n_kv_heads + kv_head)];
  KvHeadView view;
  view.type = layout.type;
  view.head_dim = layout.head_dim;
  view.block_tokens = static_cast<int>(head.capacity);
  view.n_keys = static_cast<int64_t>(head.keys.size());
  view.row_bytes = layout.row_bytes();
  view.blocks = &head.block;
  view.key_offset_bytes = 0;
  view.value_offset_bytes = static_cast<size_t>(head.capacity) * view.row_bytes;
  return view;
}

std::vector<uint8_t> WorkingSetKeeper::Seen(const Dialogue& dialogue, int layer, int kv_head) {
  std::vector<uint8_t> seen(static_cast<size_t>(dialogue.cache.n_tokens()), 0);
  const int n_kv_heads = dialogue.cache.layout().n_kv_heads;
  for (const int32_t key :
       dialogue.working_sets.heads[static_cast<size_t>(int64_t{layer} * n_kv_heads + kv_head)].keys) {
    seen[static_cast<size_t>(key)] = 1;
  }
  return seen;
}

}  // namespace loopserve
