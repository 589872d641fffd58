#include "src/model/attention_inspector.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "src/base/aligned_buffer.h"
#include "src/base/check.h"
#include "src/kernels/attention_sparse.h"
#include "src/model/attention_map.h"
#include "src/selection/lines/line_choice.h"
#include "src/selection/lines/line_mask.h"
#include "src/selection/row_sample.h"

namespace loopserve {
namespace {

constexpr AttentionMath kMath = AttentionMath::kF32;

/// One layer on its way.
struct Layer {
  const AttentionProblem& problem;
  const InspectOptions& options;
  int index;
  const LayerAttention* before;  ///< the same layer in the turn before, or null
  int64_t n_keys_before;
  AlignedBuffer packed;  ///< [n_kv_heads][PackedKvBytes]

  int64_t n_keys() const { return problem.first_position + problem.n_rows; }
  int64_t stride() const { return PaddedKeys(n_keys()); }
  std::byte* PackedOf(int kv_head) const {
    return packed.data() + PackedKvBytes(problem.head_dim, problem.kv->n_keys, kMath) * static_cast<size_t>(kv_head);
  }
  int kv_head(int head) const { return head / (problem.n_heads / problem.n_kv_heads); }
};

/// The exact weights of some rows of one head.
class Weights {
 public:
  /// rows: ascending.
  Weights(const Layer& layer, int head, std::span<const int64_t> rows, std::vector<float>* buffer, std::byte* scratch)
      : stride_(layer.stride()), buffer_(*buffer) {
    buffer->resize(rows.size() * static_cast<size_t>(stride_));
    RowWeights(layer.problem, kMath, layer.PackedOf(layer.kv_head(head)), head, rows, buffer->data(), stride_, scratch);
    for (const int64_t row : rows) positions_.push_back(layer.problem.first_position + row);
    for (size_t i = 0; i < rows.size(); ++i) {
      for (float& weight : Row(i)) weight = std::isfinite(weight) ? weight : 0.0f;
    }
  }

  size_t n_rows() const { return positions_.size(); }
  std::span<const int64_t> positions() const { return positions_; }
  /// f32 [position + 1].
  std::span<float> Row(size_t i) const {
    return std::span(buffer_).subspan(i * static_cast<size_t>(stride_), static_cast<size_t>(positions_[i]) + 1);
  }
  SampledRows AsSample() const { return {positions_, buffer_.data(), stride_}; }
  /// Mean over the rows of what `of_row` says of one of them.
  template <typename OfRow>
  double Mean(OfRow of_row) const {
    double sum = 0;
    for (size_t i = 0; i < n_rows(); ++i) sum += of_row(Row(i));
    return sum / static_cast<double>(n_rows());
  }

 private:
  int64_t stride_;
  std::vector<float>& buffer_;
  std::vector<int64_t> positions_;
};

double Sum(std::span<const float> weights) {
  double sum = 0;
  for (const float weight : weights) sum += weight;
  return sum;
}

double Coverage(const Weights& rows, const LineMask& mask) {
  return rows.Mean(
      [&](std::span<const float> row) { return mask.Share(row.data(), static_cast<int64_t>(row.size()) - 1); });
}

std::vector<int64_t> SampledRowsOf(const Layer& layer, int head, uint64_t seed) {
  std::vector<int64_t> rows(static_cast<size_t>(std::min<int64_t>(layer.options.sample_rows, layer.problem.n_rows)));
  SampleStrata({seed, layer.index, head, 0}, 0, layer.problem.n_rows, static_cast<int>(rows.size()), rows.data());
  return rows;
}

/// One row that was not sampled out of each stratum that has one.
std::vector<int64_t> HeldOutRowsOf(const Layer& layer, int head, const std::vector<int64_t>& sampled) {
  std::vector<int64_t> rows;
  const int64_t n_rows = layer.problem.n_rows;
  const int64_t strata = std::min<int64_t>(layer.options.heldout_rows, n_rows);
  for (int64_t i = 0; i < strata; ++i) {
    const int64_t first = n_rows * i / strata, end = n_rows * (i + 1) / strata;
    const auto begin_taken = std::ranges::lower_bound(sampled, first);
    const std::span<const int64_t> taken(begin_taken, std::ranges::lower_bound(sampled, end));
    if (static_cast<int64_t>(taken.size()) == end - first) continue;
    rows.push_back(HeldOutRow({layer.options.seed, layer.index, head, i}, first, end - first, taken));
  }
  return rows;
}

void MeasureSample(const Layer& layer, const Weights& sample, HeadAttention* head) {
  const auto mean_on_key = [&](int64_t key) {
    return sample.Mean([&](std::span<const float> row) {
      return key < static_cast<int64_t>(row.size()) ? row[static_cast<size_t>(key)] : 0.0f;
    });
  };
  for (AttentionLine& line : head->columns) {
    line.weight = static_cast<float>(mean_on_key(line.index));
    head->column_share += line.weight;
  }
  for (AttentionLine& line : head->slashes) {
    line.weight = static_cast<float>(sample.Mean([&](std::span<const float> row) {
      const int64_t key = static_cast<int64_t>(row.size()) - 1 - line.index;
      return key >= 0 ? row[static_cast<size_t>(key)] : 0.0f;
    }));
  }
  for (int64_t key = 0; key < kSinkKeys; ++key) head->sink_share += mean_on_key(key);
  head->near_share = sample.Mean(
      [](std::span<const float> row) { return Sum(row.last(std::min(row.size(), static_cast<size_t>(kNearKeys)))); });
  // Last: it reorders the weights.
  int64_t needed = 0, pairs = 0;
  for (size_t i = 0; i < sample.n_rows(); ++i) {
    pairs += static_cast<int64_t>(sample.Row(i).size());
    needed += FewestHolding(sample.Row(i), layer.options.alpha);
  }
  head->floor = static_cast<double>(needed) / static_cast<double>(pairs);
}

/// The choice that `sample` leads to; its lines have no weight yet.
HeadAttention ChooseFrom(const Layer& layer, const Weights& sample) {
  const AttentionProblem& problem = layer.problem;
  const LineChoice choice =
      ChooseLines({problem.first_position, layer.n_keys(), sample.AsSample()}, layer.options.alpha);
  HeadAttention head;
  for (const int32_t column : choice.columns) head.columns.push_back({column, 0});
  for (const int32_t slash : choice.slashes) head.slashes.push_back({slash, 0});
  head.computed_pairs = choice.cells;
  const auto n = static_cast<double>(problem.n_rows);
  const double causal = n * (static_cast<double>(problem.first_position) + (n + 1) / 2);
  head.density = static_cast<double>(choice.cells) / causal;
  return head;
}

HeadAttention InspectHead(const Layer& layer, int head_index, std::vector<float>* buffer, std::byte* scratch) {
  const uint64_t seed = layer.options.seed;
  const std::vector<int64_t> sampled = SampledRowsOf(layer, head_index, seed);
  HeadAttention head;
  {
    const Weights sample(layer, head_index, sampled, buffer, scratch);
    head = ChooseFrom(layer, sample);
    head.sampled_coverage = Coverage(sample, MaskOf(layer.n_keys(), head));
    MeasureSample(layer, sample, &head);
  }
  if (layer.before != nullptr) {
    const std::vector<int64_t> others = SampledRowsOf(layer, head_index, seed + 1);
    const HeadAttention again = ChooseFrom(layer, Weights(layer, head_index, others, buffer, scratch));
    head.column_resampled = OverlapOfLines(head.columns, again.columns, layer.n_keys_before);
    head.slash_resampled = OverlapOfLines(head.slashes, again.slashes, layer.n_keys_before);
  }
  const std::vector<int64_t> heldout = HeldOutRowsOf(layer, head_index, sampled);
  if (heldout.empty()) return head;
  const Weights judges(layer, head_index, heldout, buffer, scratch);
  head.heldout_coverage = Coverage(judges, MaskOf(layer.n_keys(), head));
  if (layer.before != nullptr) {
    const HeadAttention& before = layer.before->heads[static_cast<size_t>(head_index)];
    head.coverage_by_last_lines = Coverage(judges, MaskOf(layer.n_keys(), before));
  }
  return head;
}

Status PackKeys(const Layer& layer, ComputeThreads& threads) {
  const AttentionProblem& problem = layer.problem;
  return threads.ForItems(problem.n_kv_heads, [&](int64_t head, int) {
    PackKv(problem.kv[head], 0, problem.kv[head].n_keys, kMath, layer.PackedOf(static_cast<int>(head)));
  });
}

bool IsSet(const std::atomic<bool>* cancel) { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }

}  // namespace

int64_t FewestHolding(std::span<float> weights, double share) {
  // A quickselect by weight instead of by rank: the heaviest half is either not enough, and is taken, or the rest is
  // not needed.
  constexpr double kRounding = 1e-9;  // of sums in another order: all of the weight must not need keys without any
  const double target = share * (1 - kRounding) * Sum(weights);
  double held = 0;
  size_t first = 0, last = weights.size();
  while (held < target && first < last) {
    const size_t middle = (first + last) / 2;
    std::nth_element(weights.begin() + static_cast<ptrdiff_t>(first), weights.begin() + static_cast<ptrdiff_t>(middle),
                     weights.begin() + static_cast<ptrdiff_t>(last), std::greater<>());
    const double upper = Sum(weights.subspan(first, middle - first));
    if (held + upper >= target) {
      last = middle;
      continue;
    }
    held += upper + weights[middle];
    first = middle + 1;
  }
  return static_cast<int64_t>(first);
}

Status InspectLayer(const AttentionProblem& problem, int layer_index, const InspectOptions& options,
                    const TurnAttention* before, const std::atomic<bool>* cancel, ComputeThreads& threads,
                    TurnAttention* turn) {
  LS_CHECK(problem.window == 0 && problem.n_rows >= kMinInspectedRows);
  Layer layer{problem, options, layer_index, nullptr, 0, {}};
  if (before != nullptr) {
    const auto found = std::ranges::find(before->layers, layer_index, &LayerAttention::layer);
    const bool fits = found != before->layers.end() && static_cast<int>(found->heads.size()) == problem.n_heads;
    if (fits) layer.before = &*found;
    layer.n_keys_before = before->n_keys();
  }
  const size_t packed_bytes = PackedKvBytes(problem.head_dim, problem.kv->n_keys, kMath);
  if (!layer.packed.Reserve(packed_bytes * static_cast<size_t>(problem.n_kv_heads))) {
    return Status(StatusCode::kResourceExhausted, "not enough memory to look at the attention");
  }
  LS_RETURN_IF_ERROR(PackKeys(layer, threads));
  LayerAttention figures;
  figures.layer = layer_index;
  figures.heads.resize(static_cast<size_t>(problem.n_heads));
  std::atomic<int> next{0};
  LS_RETURN_IF_ERROR(threads.Parallel([&](int, int) {
    AlignedBuffer scratch;
    if (!scratch.Reserve(SparseScratchBytes(problem.head_dim, problem.kv->n_keys, kMath))) throw std::bad_alloc();
    std::vector<float> weights;
    for (int head; !IsSet(cancel) && (head = next.fetch_add(1)) < problem.n_heads;) {
      figures.heads[static_cast<size_t>(head)] = InspectHead(layer, head, &weights, scratch.data());
    }
  }));
  if (IsSet(cancel)) return Status(StatusCode::kCancelled, "cancelled while the attention was looked at");
  if (options.map_head && options.layer == layer_index) {
    const int head = *options.map_head;
    turn->map.emplace();
    LS_RETURN_IF_ERROR(DrawAttentionMap(problem, layer.PackedOf(layer.kv_head(head)), layer_index, head,
                                        figures.heads[static_cast<size_t>(head)], options.map_cells, threads,
                                        &*turn->map));
  }
  turn->layers.push_back(std::move(figures));
  return Status::Ok();
}

}  // namespace loopserve
