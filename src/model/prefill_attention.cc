#include "src/model/prefill_attention.h"

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/model/prefill_layer.h"
#include "src/model/prefill_methods.h"
#include "src/selection/eviction/eviction_choice.h"
#include "src/selection/flexprefill/flex_choice.h"
#include "src/selection/shape/attention_shape.h"

namespace loopserve {
namespace {

using Method = PrefillSettings::Method;

/// Fewer rows than this are not worth a choice: the sample would be a large part of them. Shapes choose nothing.
constexpr int64_t kMinSparseRows = 48;

/// Whether there is something to choose. Where a method would take everything, dense attention is the same and faster.
bool IsSparse(const PrefillSettings& settings, const AttentionProblem& problem, int64_t n_keys) {
  if (settings.method == Method::kDense || problem.window != 0 || n_keys < settings.min_keys) return false;
  if (settings.method == Method::kShape) {
    return MakeAttentionShape(settings, problem.n_rows, n_keys).LeavesSomethingOut();
  }
  if (settings.alpha >= 1 || settings.cover >= 1 || problem.n_rows < kMinSparseRows) return false;
  if (settings.method == Method::kMInference) return n_keys > settings.slashes;
  if (settings.method == Method::kFlexPrefill) return n_keys > FlexDenseKeys(settings.min_budget);
  return true;
}

Status RunMethod(Method method, const PrefillLayer& layer) {
  switch (method) {
    case Method::kDense:
      return PrefillDense(layer);
    case Method::kTiles:
      return PrefillTiles(layer);
    case Method::kLines:
      return PrefillLines(layer);
    case Method::kMInference:
      return PrefillMInference(layer);
    case Method::kFlexPrefill:
      return PrefillFlexPrefill(layer);
    case Method::kXAttention:
      return PrefillXAttention(layer);
    case Method::kShape:
      return PrefillShape(layer);
  }
  return Status(StatusCode::kInternal, "no such prefill method");
}

/// Adds what the threads counted and measured. attention_ms is the caller's.
void AddFigures(std::span<const PrefillThread> states, PrefillFigures* figures) {
  const auto append = [](const std::vector<float>& from, std::vector<float>* to) {
    to->insert(to->end(), from.begin(), from.end());
  };
  for (const PrefillThread& state : states) {
    append(state.coverage, &figures->heldout_coverage);
    append(state.error, &figures->output_error);
    append(state.floor_error, &figures->floor_error);
    figures->floor_keys += state.floor_keys;
    figures->floor_causal_keys += state.floor_causal_keys;
  }
}

/// Whether the policy weighs keys by what all rows attend, and will choose again.
bool CountsColumns(const Dialogue& dialogue) {
  const EvictionSettings& settings = dialogue.policy.eviction();
  return SumsColumns(settings) && (settings.every_turn || dialogue.kept.choices().empty());
}

}  // namespace

void PrefillFigures::Add(const PrefillFigures& other) {
  attention_ms += other.attention_ms;
  selection_ms += other.selection_ms;
  computed_pairs += other.computed_pairs;
  causal_pairs += other.causal_pairs;
  heldout_coverage.insert(heldout_coverage.end(), other.heldout_coverage.begin(), other.heldout_coverage.end());
  output_error.insert(output_error.end(), other.output_error.begin(), other.output_error.end());
  floor_keys += other.floor_keys;
  floor_causal_keys += other.floor_causal_keys;
  floor_error.insert(floor_error.end(), other.floor_error.begin(), other.floor_error.end());
}

PrefillAttention::PrefillAttention(const Model& model, AttentionMath math, ComputeThreads& threads)
    : model_(model), math_(math), threads_(threads), states_(static_cast<size_t>(threads.n_threads())) {}

PrefillAttention::~PrefillAttention() = default;

Status PrefillAttention::Reserve(int64_t n_rows, int64_t n_keys, const Policy& policy) {
  const HyperParams& p = model_.params();
  const bool is_sparse = policy.prefill().method != Method::kDense;
  const size_t scratch = is_sparse || SumsColumns(policy.eviction()) ? SparseScratchBytes(p.head_dim, n_keys, math_)
                                                                     : PrefillScratchBytes(p.head_dim, math_);
  bool ok = packed_kv_.Reserve(PackedKvBytes(p.head_dim, n_keys, math_) * static_cast<size_t>(p.n_kv_heads)) &&
            (!is_sparse || out_.Reserve(static_cast<size_t>(n_rows * p.q_width()) * sizeof(float)));
  for (PrefillThread& state : states_) ok = ok && state.scratch.Reserve(scratch);
  if (ok) return Status::Ok();
  return Status(StatusCode::kResourceExhausted,
                "not enough memory for the attention of " + std::to_string(n_rows) + " new tokens");
}

void PrefillAttention::FreeAbove(size_t bytes) {
  for (AlignedBuffer* buffer : {&packed_kv_, &out_}) {
    if (buffer->bytes() > bytes) buffer->Free();
  }
  for (PrefillThread& state : states_) state.weights = {};
}

Status PrefillAttention::Describe(Dialogue& dialogue, int index, int64_t n_rows, PrefillLayer* layer) {
  const HyperParams& p = model_.params();
  const int64_t n_keys = dialogue.cache.n_tokens() + n_rows;
  layer->index = index;
  layer->settings = &dialogue.policy.prefill();
  layer->math = math_;
  layer->threads = &threads_;
  layer->states = states_;
  layer->reads_kept = dialogue.kept.active() && p.window(index) == 0;
  if (layer->reads_kept) {
    LS_RETURN_IF_ERROR(threads_.ForItems(p.n_kv_heads, [&](int64_t head, int) {
      dialogue.kept.Extend(dialogue.cache, index, static_cast<int>(head), n_keys);
    }));
  }
  const size_t packed_bytes = PackedKvBytes(p.head_dim, n_keys, math_);
  for (int head = 0; head < p.n_kv_heads; ++head) {
    layer->views.push_back(layer->reads_kept ? dialogue.kept.View(index, head)
                                             : dialogue.cache.View(index, head, n_keys));
    layer->packed.push_back(packed_kv_.data() + packed_bytes * static_cast<size_t>(head));
  }
  layer->packed_read.assign(layer->packed.begin(), layer->packed.end());
  AttentionProblem& problem = layer->problem;
  problem.q_row_stride = problem.out_row_stride = p.q_width();
  problem.n_rows = n_rows;
  problem.first_position = dialogue.cache.n_tokens();
  problem.n_heads = p.n_heads;
  problem.n_kv_heads = p.n_kv_heads;
  problem.head_dim = p.head_dim;
  problem.scale = p.attention_scale;
  problem.window = p.window(index);
  problem.kv = layer->views.data();
  return Status::Ok();
}

Status PrefillAttention::Run(Dialogue& dialogue, int index, int64_t n_rows, int64_t first_row,
                             const RunControl& control, AlignedBuffer* q, PrefillFigures* figures) {
  const auto start = Clock::now();
  const PrefillSettings& settings = dialogue.policy.prefill();
  PrefillLayer layer;
  layer.measure = control.measure_quality;
  layer.control = &control;
  LS_RETURN_IF_ERROR(Describe(dialogue, index, n_rows, &layer));
  for (PrefillThread& state : states_) state.Reset();
  LS_RETURN_IF_ERROR(PackAll(layer));
  AttentionProblem& problem = layer.problem;
  problem.q = q->floats();
  if (CountsColumns(dialogue) && problem.window == 0) {
    std::vector<std::vector<float>> sums;
    LS_RETURN_IF_ERROR(SumColumns(layer, &sums));
    for (int head = 0; head < problem.n_kv_heads; ++head) {
      dialogue.kept.AddColumnSums(index, head, sums[static_cast<size_t>(head)]);
    }
  }
  problem.q = problem.out = q->floats() + first_row * problem.q_row_stride;
  problem.n_rows -= first_row;
  problem.first_position += first_row;
  const bool is_sparse = IsSparse(settings, problem, problem.first_position + problem.n_rows);
  if (is_sparse) {
    problem.out = out_.floats() + first_row * problem.out_row_stride;
    LS_RETURN_IF_ERROR(RunMethod(settings.method, layer));
    std::swap(*q, out_);
  } else {
    LS_RETURN_IF_ERROR(layer.reads_kept ? PrefillKept(layer) : PrefillDense(layer));
  }
  double selection = 0, measured = 0, computed = 0;
  for (const PrefillThread& state : states_) {
    selection += state.selection_ms / static_cast<double>(states_.size());
    measured += state.measure_ms / static_cast<double>(states_.size());
    computed += state.computed_pairs;
  }
  AddFigures(states_, figures);
  figures->causal_pairs += CausalPairs(problem.n_rows, problem.first_position + 1) * problem.n_heads;
  figures->computed_pairs += is_sparse ? computed : PairsHeld(problem);
  figures->selection_ms += selection;
  figures->attention_ms += MillisecondsSince(start) - selection - measured - states_.front().paused_ms;
  return Status::Ok();
}

Status PrefillAttention::PackAll(const PrefillLayer& layer) {
  return threads_.Parallel([&](int thread, int n_threads) {
    for (size_t head = 0; head < layer.views.size(); ++head) {
      const int64_t n_keys = layer.views[head].n_keys;
      const int64_t n_groups = (n_keys + kPackGroupKeys - 1) / kPackGroupKeys;
      const int64_t first = n_groups * thread / n_threads * kPackGroupKeys;
      const int64_t last = std::min(n_groups * (thread + 1) / n_threads * kPackGroupKeys, n_keys);
      if (first < last) PackKv(layer.views[head], first, last, math_, layer.packed[head]);
    }
  });
}

}  // namespace loopserve
