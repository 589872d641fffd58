#include "src/model/prefill_attention.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <numeric>

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/selection/lines/line_choice.h"
#include "src/selection/row_sample.h"
#include "src/selection/tiles/tile_choice.h"

namespace loopserve {
namespace {

using Method = PrefillSettings::Method;

/// Fewer rows than this are not worth a choice: the sample would be a large part of them.
constexpr int64_t kMinSparseRows = 48;
/// Blocks of rows that one thread takes one after another, at most: each gives the next its hint.
constexpr int64_t kMaxRunBlocks = 8;
constexpr int64_t kShiftTiles = kMaxBlockRows / kChoiceTileKeys;
static_assert(kMaxBlockRows % kChoiceTileKeys == 0);

/// Causal pairs of `rows` rows, the first of which attends `first_keys` keys.
double CausalPairs(int64_t rows, int64_t first_keys) {
  return static_cast<double>(rows) * (static_cast<double>(first_keys) + static_cast<double>(rows - 1) / 2);
}

float RelativeError(const float* actual, const float* expected, int n) {
  double difference = 0, norm = 0;
  for (int i = 0; i < n; ++i) {
    difference += (double{actual[i]} - expected[i]) * (double{actual[i]} - expected[i]);
    norm += double{expected[i]} * expected[i];
  }
  return norm > 0 ? static_cast<float>(std::sqrt(difference / norm)) : 0.0f;
}

}  // namespace

void PrefillFigures::Add(const PrefillFigures& other) {
  attention_ms += other.attention_ms;
  selection_ms += other.selection_ms;
  computed_pairs += other.computed_pairs;
  causal_pairs += other.causal_pairs;
  heldout_coverage.insert(heldout_coverage.end(), other.heldout_coverage.begin(), other.heldout_coverage.end());
  output_error.insert(output_error.end(), other.output_error.begin(), other.output_error.end());
}

/// One layer on its way.
struct PrefillAttention::Layer {
  int index = 0;
  const PrefillSettings* settings = nullptr;
  bool measure = false;
  AttentionProblem problem;
  std::vector<KvHeadView> views;
  std::vector<std::byte*> packed;
  std::vector<const std::byte*> packed_read;  // the same, as the kernels take it

  int64_t n_blocks() const { return (problem.n_rows + kMaxBlockRows - 1) / kMaxBlockRows; }
  int kv_head(int head) const { return head / (problem.n_heads / problem.n_kv_heads); }
  const std::byte* packed_of(int head) const { return packed_read[static_cast<size_t>(kv_head(head))]; }
  RowBlock Block(int head, int64_t block) const {
    const int64_t first = block * kMaxBlockRows;
    return {head, first, static_cast<int>(std::min<int64_t>(kMaxBlockRows, problem.n_rows - first))};
  }
};

/// What each thread has of its own.
struct PrefillAttention::ThreadState {
  AlignedBuffer scratch;
  std::vector<float> mass, mass_before, estimate;
  std::vector<int32_t> tiles;
  std::vector<float> weights;  // kLines: [sampled rows, stride]
  std::vector<float> row_out;  // one row of dense output, all heads
  double selection_ms = 0;
  double measure_ms = 0;
  double computed_pairs = 0;
  std::vector<float> coverage, error;

  void Measure(const Layer& layer, const std::byte* packed, AttentionMath math, const RowBlock& block, float held) {
    const AttentionProblem& problem = layer.problem;
    AttentionProblem dense = problem;
    row_out.resize(static_cast<size_t>(problem.q_row_stride));
    dense.out = row_out.data();
    dense.out_row_stride = 0;
    std::vector<int32_t> all(static_cast<size_t>(ChoiceTiles(problem.first_position + block.first_row + 1)));
    std::iota(all.begin(), all.end(), 0);
    AttendTiles(dense, math, packed, block, all, scratch.data());
    const int64_t column = int64_t{block.head} * problem.head_dim;
    error.push_back(RelativeError(problem.out + block.first_row * problem.out_row_stride + column,
                                  row_out.data() + column, problem.head_dim));
    coverage.push_back(held);
  }
};

PrefillAttention::PrefillAttention(const Model& model, AttentionMath math, ComputeThreads& threads)
    : model_(model), math_(math), threads_(threads), states_(static_cast<size_t>(threads.n_threads())) {}

PrefillAttention::~PrefillAttention() = default;

Status PrefillAttention::Reserve(int64_t n_rows, int64_t n_keys, const PrefillSettings& settings) {
  const HyperParams& p = model_.params();
  const bool is_sparse = settings.method != Method::kDense;
  const size_t scratch =
      is_sparse ? SparseScratchBytes(p.head_dim, n_keys, math_) : PrefillScratchBytes(p.head_dim, math_);
  bool ok = packed_kv_.Reserve(PackedKvBytes(p.head_dim, n_keys, math_) * static_cast<size_t>(p.n_kv_heads)) &&
            (!is_sparse || out_.Reserve(static_cast<size_t>(n_rows * p.q_width()) * sizeof(float)));
  for (ThreadState& state : states_) ok = ok && state.scratch.Reserve(scratch);
  if (ok) return Status::Ok();
  return Status(StatusCode::kResourceExhausted,
                "not enough memory for the attention of " + std::to_string(n_rows) + " new tokens");
}

void PrefillAttention::FreeAbove(size_t bytes) {
  for (AlignedBuffer* buffer : {&packed_kv_, &out_}) {
    if (buffer->bytes() > bytes) buffer->Free();
  }
  for (ThreadState& state : states_) state.weights = {};
}

Status PrefillAttention::Run(const KvCache& cache, int layer_index, int64_t n_rows, int64_t first_row,
                             const PrefillSettings& settings, bool measure, AlignedBuffer* q, PrefillFigures* figures) {
  const auto start = Clock::now();
  const HyperParams& p = model_.params();
  const int64_t n_keys = cache.n_tokens() + n_rows;
  Layer layer;
  layer.index = layer_index;
  layer.settings = &settings;
  layer.measure = measure;
  const size_t packed_bytes = PackedKvBytes(p.head_dim, n_keys, math_);
  for (int head = 0; head < p.n_kv_heads; ++head) {
    layer.views.push_back(cache.View(layer_index, head, n_keys));
    layer.packed.push_back(packed_kv_.data() + packed_bytes * static_cast<size_t>(head));
  }
  layer.packed_read.assign(layer.packed.begin(), layer.packed.end());
  AttentionProblem& problem = layer.problem;
  problem.q = q->floats() + first_row * p.q_width();
  problem.out = q->floats() + first_row * p.q_width();
  problem.q_row_stride = problem.out_row_stride = p.q_width();
  problem.n_rows = n_rows - first_row;
  problem.first_position = cache.n_tokens() + first_row;
  problem.n_heads = p.n_heads;
  problem.n_kv_heads = p.n_kv_heads;
  problem.head_dim = p.head_dim;
  problem.scale = p.attention_scale;
  problem.window = p.window(layer_index);
  problem.kv = layer.views.data();
  const double causal = CausalPairs(problem.n_rows, problem.first_position + 1) * p.n_heads;

  for (ThreadState& state : states_) state.selection_ms = state.measure_ms = state.computed_pairs = 0;
  LS_RETURN_IF_ERROR(PackAll(layer));
  const bool is_sparse = settings.method != Method::kDense && settings.alpha < 1 && problem.window == 0 &&
                         n_keys >= settings.min_keys && problem.n_rows >= kMinSparseRows;
  if (is_sparse) {
    LS_CHECK(first_row == 0);  // no policy asks for the last row alone of so many
    problem.out = out_.floats();
    LS_RETURN_IF_ERROR(settings.method == Method::kTiles ? RunTiles(layer) : RunLines(layer));
    std::swap(*q, out_);
  } else {
    LS_RETURN_IF_ERROR(RunDense(layer));
  }
  double selection = 0, measured = 0, computed = 0;
  for (ThreadState& state : states_) {
    selection += state.selection_ms / static_cast<double>(states_.size());
    measured += state.measure_ms / static_cast<double>(states_.size());
    computed += state.computed_pairs;
    figures->heldout_coverage.insert(figures->heldout_coverage.end(), state.coverage.begin(), state.coverage.end());
    figures->output_error.insert(figures->output_error.end(), state.error.begin(), state.error.end());
    state.coverage.clear();
    state.error.clear();
  }
  figures->causal_pairs += causal;
  figures->computed_pairs += is_sparse ? computed : causal;
  figures->selection_ms += selection;
  figures->attention_ms += MillisecondsSince(start) - selection - measured;
  return Status::Ok();
}

Status PrefillAttention::PackAll(const Layer& layer) {
  const int64_t n_keys = layer.views.front().n_keys;
  const int64_t n_groups = (n_keys + kPackGroupKeys - 1) / kPackGroupKeys;
  return threads_.Parallel([&](int thread, int n_threads) {
    for (size_t head = 0; head < layer.views.size(); ++head) {
      const int64_t first = n_groups * thread / n_threads * kPackGroupKeys;
      const int64_t last = std::min(n_groups * (thread + 1) / n_threads * kPackGroupKeys, n_keys);
      if (first < last) PackKv(layer.views[head], first, last, math_, layer.packed[head]);
    }
  });
}

Status PrefillAttention::RunDense(const Layer& layer) {
  std::atomic<int64_t> next{0};
  const int64_t n_items = PrefillItemCount(layer.problem);
  return threads_.Parallel([&](int thread, int) {
    for (int64_t item; (item = next.fetch_add(1)) < n_items;) {
      PrefillAttentionItem(layer.problem, math_, layer.packed_read.data(), item, states_[thread].scratch.data());
    }
  });
}

Status PrefillAttention::RunTiles(const Layer& layer) {
  const int64_t n_blocks = layer.n_blocks();
  const int64_t n_heads = layer.problem.n_heads;
  // Long runs waste little on the block before the first; short ones share out evenly.
  const int64_t run = std::clamp<int64_t>(n_blocks * n_heads / (8 * threads_.n_threads()), 1, kMaxRunBlocks);
  const int64_t n_runs = (n_blocks + run - 1) / run;
  std::atomic<int64_t> next{0};
  return threads_.Parallel([&](int thread, int) {
    ThreadState& state = states_[thread];
    for (int64_t item; (item = next.fetch_add(1)) < n_runs * n_heads;) {
      const int64_t first = (n_runs - 1 - item / n_heads) * run;  // the longest rows first
      const int head = static_cast<int>(item % n_heads);
      state.mass.clear();
      if (first > 0 && layer.settings->hint > 0) RunTileBlock(layer, head, first - 1, /*only_mass=*/true, state);
      for (int64_t block = first; block < std::min(first + run, n_blocks); ++block) {
        RunTileBlock(layer, head, block, /*only_mass=*/false, state);
      }
    }
  });
}

void PrefillAttention::RunTileBlock(const Layer& layer, int head, int64_t block_index, bool only_mass,
                                    ThreadState& state) {
  const auto start = Clock::now();
  const AttentionProblem& problem = layer.problem;
  const PrefillSettings& settings = *layer.settings;
  const RowBlock block = layer.Block(head, block_index);
  const int64_t first_position = problem.first_position + block.first_row;
  const SampleKey key = {settings.seed, layer.index, head, block_index};
  std::array<int64_t, kMaxSampledRows + 1> sampled;
  const int n_sampled = SampleStrata(key, block.first_row, block.n_rows, settings.sample_rows, sampled.data());
  const std::span<const int64_t> rows(sampled.data(), static_cast<size_t>(n_sampled));
  std::swap(state.mass, state.mass_before);
  // Tiles after the last sampled row hold the block's own keys only: no weight is known there, and all are taken.
  state.mass.assign(static_cast<size_t>(ChoiceTiles(first_position + block.n_rows)), 0.0f);
  TileMass(problem, math_, layer.packed_of(head), head, rows, state.mass.data(), state.scratch.data());
  if (!only_mass) {
    TileProblem choice;
    choice.mass = state.mass;
    choice.mass_before = state.mass_before;
    choice.shift_tiles = kShiftTiles;
    choice.first_own_tile = first_position / kChoiceTileKeys;
    ChooseTiles(choice, settings.alpha, settings.hint, &state.estimate, &state.tiles);
  }
  state.selection_ms += MillisecondsSince(start);
  if (only_mass) return;

  AttendTiles(problem, math_, layer.packed_of(head), block, state.tiles, state.scratch.data());
  const int64_t own_key = first_position / kChoiceTileKeys * kChoiceTileKeys;
  const auto chosen_before = std::ranges::lower_bound(state.tiles, own_key / kChoiceTileKeys) - state.tiles.begin();
  state.computed_pairs += static_cast<double>(chosen_before) * kChoiceTileKeys * block.n_rows +
                          CausalPairs(block.n_rows, first_position + 1 - own_key);
  if (!layer.measure || n_sampled == block.n_rows) return;

  const auto measure_start = Clock::now();
  const int64_t row = HeldOutRow(key, block.first_row, block.n_rows, rows);
  std::vector<float> mass(static_cast<size_t>(ChoiceTiles(problem.first_position + row + 1)));
  TileMass(problem, math_, layer.packed_of(head), head, {&row, 1}, mass.data(), state.scratch.data());
  float held = 0;
  for (const int32_t tile : state.tiles) held += tile < static_cast<int64_t>(mass.size()) ? mass[tile] : 0;
  state.Measure(layer, layer.packed_of(head), math_, {head, row, 1}, held);
  state.measure_ms += MillisecondsSince(measure_start);
}

std::unique_ptr<PackedLines> PrefillAttention::ChooseHeadLines(const Layer& layer, int head, ThreadState& state) {
  const auto start = Clock::now();
  const AttentionProblem& problem = layer.problem;
  const int64_t n_keys = layer.views.front().n_keys;
  const int64_t stride = (n_keys + kPackGroupKeys - 1) / kPackGroupKeys * kPackGroupKeys;
  std::vector<int64_t> rows(static_cast<size_t>(std::min<int64_t>(layer.settings->sample_rows, problem.n_rows)));
  SampleStrata({layer.settings->seed, layer.index, head, 0}, 0, problem.n_rows, static_cast<int>(rows.size()),
               rows.data());
  state.weights.resize(rows.size() * static_cast<size_t>(stride));
  for (size_t i = 0; i < rows.size(); i += kMaxSampledRows) {
    const auto part = std::span<const int64_t>(rows).subspan(i, std::min<size_t>(kMaxSampledRows, rows.size() - i));
    RowWeights(problem, math_, layer.packed_of(head), head, part,
               state.weights.data() + i * static_cast<size_t>(stride), stride, state.scratch.data());
  }
  for (int64_t& row : rows) row += problem.first_position;
  const LineProblem lines = {problem.first_position, n_keys, {rows, state.weights.data(), stride}};
  const LineChoice choice = ChooseLines(lines, layer.settings->alpha);
  state.computed_pairs += static_cast<double>(choice.cells);
  auto packed = std::make_unique<PackedLines>(problem.kv[layer.kv_head(head)], choice.columns, choice.slashes, math_);
  state.selection_ms += MillisecondsSince(start);
  return packed;
}

Status PrefillAttention::RunLines(const Layer& layer) {
  const int n_heads = layer.problem.n_heads;
  std::vector<std::unique_ptr<PackedLines>> lines(static_cast<size_t>(n_heads));
  std::atomic<int64_t> next_head{0}, next_block{0};
  LS_RETURN_IF_ERROR(threads_.Parallel([&](int thread, int) {
    for (int64_t head; (head = next_head.fetch_add(1)) < n_heads;) {
      lines[static_cast<size_t>(head)] = ChooseHeadLines(layer, static_cast<int>(head), states_[thread]);
    }
  }));
  const int64_t n_blocks = layer.n_blocks();
  return threads_.Parallel([&](int thread, int) {
    for (int64_t item; (item = next_block.fetch_add(1)) < n_blocks * n_heads;) {
      const int head = static_cast<int>(item % n_heads);
      RunLineBlock(layer, head, n_blocks - 1 - item / n_heads, *lines[static_cast<size_t>(head)], states_[thread]);
    }
  });
}

void PrefillAttention::RunLineBlock(const Layer& layer, int head, int64_t block_index, const PackedLines& lines,
                                    ThreadState& state) {
  const AttentionProblem& problem = layer.problem;
  const RowBlock block = layer.Block(head, block_index);
  AttendLines(problem, math_, layer.packed_of(head), block, lines, state.scratch.data());
  if (!layer.measure) return;
  const auto start = Clock::now();
  const int64_t row =
      HeldOutRow({layer.settings->seed, layer.index, head, block_index}, block.first_row, block.n_rows, {});
  const int64_t position = problem.first_position + row;
  const int64_t stride = (position + kPackGroupKeys) / kPackGroupKeys * kPackGroupKeys;
  state.weights.resize(std::max(state.weights.size(), static_cast<size_t>(stride)));
  RowWeights(problem, math_, layer.packed_of(head), head, {&row, 1}, state.weights.data(), stride,
             state.scratch.data());
  state.Measure(layer, layer.packed_of(head), math_, {head, row, 1}, lines.Coverage(state.weights.data(), position));
  state.measure_ms += MillisecondsSince(start);
}

}  // namespace loopserve
