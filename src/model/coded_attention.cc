#include "src/model/coded_attention.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <new>
#include <numeric>
#include <span>
#include <thread>

#include "src/base/check.h"
#include "src/kernels/key_list.h"
#include "src/kernels/key_weights.h"

namespace loopserve {
namespace {

/// How much lighter than the lightest key read for the last token a key may be and still be considered for the next:
/// should more than that change from one token to the next, a token reads fewer keys.
constexpr float kLeastWeightDrop = 0.125f;

static_assert(CodedKeys::kRunKeys <= kMostNumbers);

/// Sinks are always read exactly.
void LeaveOutSinks(uint16_t* weights, float* group_sums) {
  for (int i = 0; i < CodedKeys::kSinks; ++i) {
    group_sums[0] -= WeightOf(weights[i]);
    weights[i] = 0;
  }
  group_sums[0] = std::max(0.0f, group_sums[0]);
}

}  // namespace

struct CodedAttention::ThreadState {
  std::vector<uint8_t> tables;   // of kMaxCodeQueries queries
  std::vector<uint16_t> sums;    // of these queries and the keys of a run
  std::vector<float> shares;     // [n_runs][n_heads]: from a weight relative to its run to a share of the head's
  std::vector<uint32_t> counts;  // [n_units][WeightBins::kBins]
  std::vector<int32_t> picked;   // of a unit, with room for what a run may add
  int64_t n_picked = 0;
  int64_t n_read = 0;  // exact keys, all KV heads
};

CodedAttention::CodedAttention(const HyperParams& params, int n_threads)
    : params_(params),
      n_threads_(n_threads),
      group_(params.n_heads / params.n_kv_heads),
      states_(static_cast<size_t>(n_threads)) {}

CodedAttention::~CodedAttention() = default;

Status CodedAttention::BeginStep(Dialogue& dialogue, int64_t position, bool mark_seen) {
  const DecodeSettings& settings = dialogue.policy.decode();
  dialogue_ = &dialogue;
  position_ = position;
  mark_seen_ = mark_seen;
  const int64_t newest = std::max<int64_t>(0, position + 1 - settings.recent);
  n_scanned_ = std::min(dialogue.coded_keys.n_keys(), newest) / kCodeGroupKeys * kCodeGroupKeys;
  n_runs_ = static_cast<int>((n_scanned_ + CodedKeys::kRunKeys - 1) / CodedKeys::kRunKeys);
  n_units_ = settings.per_query_head ? params_.n_heads : params_.n_kv_heads;
  unit_heads_ = params_.n_heads / n_units_;
  part_floats_ = static_cast<size_t>(params_.n_heads) * KeyListPartialFloats(params_.head_dim);
  const auto n_heads = static_cast<size_t>(params_.n_heads);
  const auto n_scanned = static_cast<size_t>(n_scanned_);
  const auto n_runs = static_cast<size_t>(n_runs_);
  try {
    always_.clear();
    for (int64_t key = 0; key < std::min<int64_t>(CodedKeys::kSinks, n_scanned_); ++key)
      always_.push_back(static_cast<int32_t>(key));
    for (int64_t key = n_scanned_; key <= position; ++key) always_.push_back(static_cast<int32_t>(key));
    wanted_ = std::max<int64_t>(0, settings.budget - static_cast<int64_t>(always_.size()));
    weights_.resize(n_heads * n_scanned);
    group_sums_.resize(n_heads * n_scanned / kCodeGroupKeys);
    // A run may write up to 16 numbers beyond its last.
    heavy_.resize(static_cast<size_t>(n_units_) * n_scanned + 16);
    totals_.resize(static_cast<size_t>(n_units_) * n_scanned + 16);
    n_heavy_.resize(n_runs * static_cast<size_t>(n_units_));
    dialogue.least_weights.resize(static_cast<size_t>(params_.n_layers) * static_cast<size_t>(n_units_), 0.0f);
    largest_.resize((n_runs + 1) * n_heads);
    sums_.resize((n_runs + 1) * n_heads);
    for (ThreadState& state : states_) {
      state.tables.resize(kMaxCodeQueries * CodeTableBytes(params_.head_dim));
      state.sums.resize(size_t{kMaxCodeQueries} * CodedKeys::kRunKeys);
      state.shares.resize(n_runs * n_heads);
      state.counts.resize(static_cast<size_t>(n_units_) * WeightBins::kBins);
      state.picked.resize(static_cast<size_t>(std::min(wanted_, n_scanned_) + CodedKeys::kRunKeys + 16));
    }
    if (mark_seen) {
      seen_.assign(
          static_cast<size_t>(params_.n_layers) * static_cast<size_t>(n_units_) * static_cast<size_t>(position + 1), 0);
    }
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for a decode step");
  }
  if (!partials_.Reserve((2 * static_cast<size_t>(n_threads_) + 1) * part_floats_ * sizeof(float))) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for a decode step");
  }
  row_is_stored_ = false;
  return Status::Ok();
}

int CodedAttention::ScannedGroups(int run) const {
  const int64_t keys = std::min(CodedKeys::kRunKeys, n_scanned_ - run * CodedKeys::kRunKeys);
  return static_cast<int>(keys / kCodeGroupKeys);
}

void CodedAttention::Scan(int layer, const float* q, int thread) {
  ThreadState& state = states_[static_cast<size_t>(thread)];
  if (thread == 0) {
    layer_ = layer;
    q_ = q;
    row_is_stored_.store(true, std::memory_order_release);
  }
  std::ranges::fill(state.counts, 0u);
  state.n_read = 0;
  ClearPartials(params_.head_dim, params_.n_heads, Partials(2 * thread));
  ClearPartials(params_.head_dim, params_.n_heads, Partials(2 * thread + 1));
  for (int64_t i = thread; i < n_pieces(); i += n_threads_) ScanPiece(layer, q, PieceAt(i), state);
  // The first thread stored the row long ago, unless there was nothing to scan.
  while (!row_is_stored_.load(std::memory_order_acquire)) std::this_thread::yield();
  for (int kv_head = thread; kv_head < params_.n_kv_heads; kv_head += n_threads_) {
    AttendAlways(dialogue_->cache.View(layer, kv_head, position_ + 1), kv_head);
    state.n_read += static_cast<int64_t>(always_.size());
  }
  if (mark_seen_ && thread == 0) MarkAlways();
}

/// Sinks and the newest keys: their softmax is known exactly from the start.
void CodedAttention::AttendAlways(const KvHeadView& kv, int kv_head) {
  const size_t stride = KeyListPartialFloats(params_.head_dim);
  const int head = kv_head * group_;
  float* partials = Partials(2 * n_threads_) + static_cast<size_t>(head) * stride;
  ClearPartials(params_.head_dim, group_, partials);
  AddKeyList(kv, q_ + int64_t{head} * params_.head_dim, group_, params_.attention_scale, always_.data(),
             static_cast<int64_t>(always_.size()), partials);
  for (int i = 0; i < group_; ++i) {
    const size_t at = RunHead(n_runs_, head + i);
    largest_[at] = partials[static_cast<size_t>(i) * stride];
    sums_[at] = partials[static_cast<size_t>(i) * stride + 1];
  }
}

void CodedAttention::ScanPiece(int layer, const float* q, const Piece& piece, ThreadState& state) {
  const CodedKeys::Run& run = dialogue_->coded_keys.run(layer, piece.kv_head, piece.run);
  const int n_groups = ScannedGroups(piece.run);
  const float factor = params_.attention_scale * 1.44269504088896341f;  // log2(e): scores in units of log2
  const size_t table_bytes = CodeTableBytes(params_.head_dim);
  for (int first = 0; first < group_; first += kMaxCodeQueries) {
    const int n = std::min(kMaxCodeQueries, group_ - first);
    const int head = piece.kv_head * group_ + first;
    CodeTables tables[kMaxCodeQueries];
    for (int i = 0; i < n; ++i) {
      tables[i] = MakeCodeTables(run.book, q + int64_t{head + i} * params_.head_dim, factor,
                                 state.tables.data() + static_cast<size_t>(i) * table_bytes);
    }
    SumCodes(run.codes.data(), n_groups, params_.head_dim, tables, n, state.sums.data(), CodedKeys::kRunKeys);
    for (int i = 0; i < n; ++i) {
      uint16_t* sums = state.sums.data() + i * CodedKeys::kRunKeys;
      uint16_t* weights = WeightsOf(head + i, piece.run);
      float* group_sums = GroupSums(head + i, piece.run);
      if (piece.run == 0) std::fill_n(sums, CodedKeys::kSinks, uint16_t{0});  // no part in the largest
      const size_t at = RunHead(piece.run, head + i);
      largest_[at] = WeighSums(sums, n_groups, tables[i].base, tables[i].step, weights, group_sums);
      if (piece.run == 0) LeaveOutSinks(weights, group_sums);
      sums_[at] = std::accumulate(group_sums, group_sums + n_groups, 0.0f);
    }
  }
}

void CodedAttention::FindShares(ThreadState& state) const {
  for (int head = 0; head < params_.n_heads; ++head) {
    float largest = -FLT_MAX;
    for (int run = 0; run <= n_runs_; ++run) largest = std::max(largest, largest_[RunHead(run, head)]);
    float sum = 0;
    for (int run = 0; run <= n_runs_; ++run) {
      const float scale = std::exp2(largest_[RunHead(run, head)] - largest);
      sum += scale * sums_[RunHead(run, head)];
      if (run < n_runs_) state.shares[RunHead(run, head)] = scale;
    }
    for (int run = 0; run < n_runs_; ++run) state.shares[RunHead(run, head)] /= sum;
  }
}

void CodedAttention::Weigh(int thread) {
  if (thread == 0) row_is_stored_.store(false, std::memory_order_relaxed);  // for the next layer
  ThreadState& state = states_[static_cast<size_t>(thread)];
  FindShares(state);
  for (int64_t i = thread; i < n_pieces(); i += n_threads_) {
    const Piece piece = PieceAt(i);
    const int64_t n_keys = int64_t{ScannedGroups(piece.run)} * kCodeGroupKeys;
    for (int head = piece.kv_head * group_; head < (piece.kv_head + 1) * group_; head += unit_heads_) {
      const int unit = head / unit_heads_;
      const int64_t begin = int64_t{unit} * n_scanned_ + piece.run * CodedKeys::kRunKeys;
      const int64_t n = FindHeavy(
          WeightsOf(head, piece.run), n_scanned_, state.shares.data() + RunHead(piece.run, head), unit_heads_, n_keys,
          std::max(LeastWeight(unit), WeightBins::LeastOf(0)), heavy_.data() + begin, totals_.data() + begin);
      n_heavy_[static_cast<size_t>(piece.run * n_units_ + unit)] = static_cast<int32_t>(n);
      CountWeights({totals_.data() + begin, static_cast<size_t>(n)},
                   std::span(state.counts).subspan(static_cast<size_t>(unit) * WeightBins::kBins, WeightBins::kBins));
    }
  }
}

void CodedAttention::Attend(const KvHeadView* kv, int thread) {
  ThreadState& state = states_[static_cast<size_t>(thread)];
  for (int unit = 0; unit < n_units_; ++unit) {
    const int head = unit * unit_heads_;
    const int kv_head = head / group_;
    std::array<uint32_t, WeightBins::kBins> counts = {};
    for (const ThreadState& other : states_) {
      const uint32_t* own = other.counts.data() + static_cast<size_t>(unit) * WeightBins::kBins;
      for (size_t bin = 0; bin < counts.size(); ++bin) counts[bin] += own[bin];
    }
    const WeightCut cut = FindWeightCut(counts, wanted_);
    state.n_picked = 0;
    for (int64_t i = thread; i < n_pieces(); i += n_threads_) {
      const Piece piece = PieceAt(i);
      if (piece.kv_head == kv_head) PickPiece(piece, unit, cut, thread);
    }
    state.n_read += state.n_picked;
    AddKeyList(kv[kv_head], q_ + int64_t{head} * params_.head_dim, unit_heads_, params_.attention_scale,
               state.picked.data(), state.n_picked,
               Partials(2 * thread) + static_cast<size_t>(head) * KeyListPartialFloats(params_.head_dim));
    // No thread reads this before the next step.
    if (thread == 0) LeastWeight(unit) = cut.Least() * kLeastWeightDrop;
  }
}

void CodedAttention::PickPiece(const Piece& piece, int unit, const WeightCut& cut, int thread) {
  ThreadState& state = states_[static_cast<size_t>(thread)];
  const auto first_key = static_cast<int32_t>(piece.run * CodedKeys::kRunKeys);
  const int64_t begin = int64_t{unit} * n_scanned_ + first_key;
  const int64_t n_heavy = n_heavy_[static_cast<size_t>(piece.run * n_units_ + unit)];
  int32_t* kept = state.picked.data() + state.n_picked;
  const int64_t n = KeepHeaviest(heavy_.data() + begin, totals_.data() + begin, n_heavy, cut, first_key, kept);
  const std::span<const int32_t> picked(kept, static_cast<size_t>(n));
  state.n_picked += n;
  const int n_groups = ScannedGroups(piece.run);
  const CodedKeys::Run& run = dialogue_->coded_keys.run(layer_, piece.kv_head, piece.run);
  const int head = unit * unit_heads_;
  for (int i = head; i < head + unit_heads_; ++i) {
    // What is read exactly does not count by estimate too.
    float* group_sums = GroupSums(i, piece.run);
    const uint16_t* weights = WeightsOf(i, piece.run);
    for (const int32_t key : picked)
      group_sums[(key - first_key) / kCodeGroupKeys] -= WeightOf(weights[key - first_key]);
    for (int g = 0; g < n_groups; ++g) group_sums[g] = std::max(0.0f, group_sums[g]);
    AddWeightedRows(run.value_means.data(), n_groups, params_.head_dim, group_sums, largest_[RunHead(piece.run, i)],
                    Partials(2 * thread + 1) + static_cast<size_t>(i) * KeyListPartialFloats(params_.head_dim));
  }
  if (mark_seen_) {
    uint8_t* seen = seen_.data() + SeenBegin(layer_, unit);
    for (const int32_t key : picked) seen[key] = 1;
  }
}

void CodedAttention::Merge(float* out, int thread) {
  AttentionProblem problem;
  problem.out = out;
  problem.n_rows = 1;
  problem.n_heads = params_.n_heads;
  problem.n_kv_heads = params_.n_kv_heads;
  problem.head_dim = params_.head_dim;
  DecodeAttentionMerge(problem, 2 * n_threads_ + 1, params_.n_heads * thread / n_threads_,
                       params_.n_heads * (thread + 1) / n_threads_, partials_.data());
}

double CodedAttention::KeysRead() const {
  int64_t n = 0;
  for (const ThreadState& state : states_) n += state.n_read;
  const auto group_bytes =
      static_cast<double>(CodeGroupBytes(params_.head_dim) + sizeof(float) * static_cast<size_t>(params_.head_dim));
  const double exact_bytes = 2.0 * static_cast<double>(dialogue_->cache.layout().row_bytes());
  return static_cast<double>(n) +
         group_bytes / exact_bytes * static_cast<double>(n_scanned_ / kCodeGroupKeys * params_.n_kv_heads);
}

const uint8_t* CodedAttention::Seen(int layer, int head) const {
  return seen_.data() + SeenBegin(layer, head / unit_heads_);
}

void CodedAttention::MarkAlways() {
  for (int unit = 0; unit < n_units_; ++unit) {
    uint8_t* seen = seen_.data() + SeenBegin(layer_, unit);
    for (const int32_t key : always_) seen[key] = 1;
  }
}

}  // namespace loopserve
