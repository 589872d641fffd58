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
#include "src/kernels/fetch_ahead.h"
#include "src/kernels/key_list.h"
#include "src/kernels/key_weights.h"

namespace loopserve {
namespace {

/// How much lighter than the lightest key read for the last token a key may be and still be considered for the next:
/// should more than that change from one token to the next, a token reads fewer keys.
constexpr float kLeastWeightDrop = 0.125f;

static_assert(CodedKeys::kRunKeys <= kMostNumbers);

/// What is read first of a run: its codebook and its first codes.
void FetchBeginning(const CodedKeys::Run& run) {
  FetchAhead(run.book.places.data(), run.book.places.size() * sizeof(KeyCodebook::Place));
  FetchAhead(run.book.mean.data(), run.book.mean.size() * sizeof(float));
  FetchAhead(run.book.deviation.data(), run.book.deviation.size() * sizeof(float));
  FetchAhead(run.codes.data(), std::min(run.codes.size(), 4 * CodeGroupBytes(run.book.head_dim)));
}

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
  std::vector<uint8_t> tables;    // of kMaxCodeQueries queries
  std::vector<uint16_t> sums;     // of these queries and the keys of a run
  std::vector<float> shares;      // [n_runs][n_heads]: from a weight relative to its run to a share of the head's
  std::vector<uint32_t> counts;   // [n_units][WeightBins::kBins]
  std::vector<int32_t> picked;    // unit by unit, with room for what a run may add
  std::vector<int64_t> unit_end;  // where each ends
  int64_t n_picked = 0;
  int64_t n_read = 0;  // exact keys, all KV heads

  std::span<const int32_t> Picked(int unit) const {
    const auto i = static_cast<size_t>(unit);
    return std::span(picked).subspan(static_cast<size_t>(unit == 0 ? 0 : unit_end[i - 1]),
                                     static_cast<size_t>(unit_end[i] - (unit == 0 ? 0 : unit_end[i - 1])));
  }
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
    largest_.resize((n_runs + states_.size()) * n_heads);
    sums_.resize((n_runs + states_.size()) * n_heads);
    for (ThreadState& state : states_) {
      state.tables.resize(kMaxCodeQueries * CodeTableBytes(params_.head_dim));
      state.sums.resize(size_t{kMaxCodeQueries} * CodedKeys::kRunKeys);
      state.shares.resize(n_runs * n_heads);
      state.counts.resize(static_cast<size_t>(n_units_) * WeightBins::kBins);
      state.picked.resize(static_cast<size_t>(n_units_ * std::min(wanted_, n_scanned_) + CodedKeys::kRunKeys + 16));
      state.unit_end.resize(static_cast<size_t>(n_units_));
    }
    if (mark_seen) {
      seen_.assign(
          static_cast<size_t>(params_.n_layers) * static_cast<size_t>(n_units_) * static_cast<size_t>(position + 1), 0);
    }
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for a decode step");
  }
  if (!partials_.Reserve(3 * states_.size() * part_floats_ * sizeof(float))) {
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
  ClearPartials(params_.head_dim, params_.n_heads, Partials(2 * thread));
  ClearPartials(params_.head_dim, params_.n_heads, Partials(2 * thread + 1));
  for (int64_t i = thread; i < n_pieces(); i += n_threads_) {
    if (i + n_threads_ < n_pieces()) FetchBeginning(RunOf(layer, PieceAt(i + n_threads_)));
    ScanPiece(layer, q, PieceAt(i), state);
  }
}

void CodedAttention::AttendAlways(int thread) {
  ThreadState& state = states_[static_cast<size_t>(thread)];
  // The first thread stored the row long ago, unless there was nothing to scan.
  while (!row_is_stored_.load(std::memory_order_acquire)) std::this_thread::yield();
  const auto n = static_cast<int64_t>(always_.size());
  const int64_t begin = n * thread / n_threads_;
  const int64_t end = n * (thread + 1) / n_threads_;
  const size_t stride = KeyListPartialFloats(params_.head_dim);
  float* partials = Partials(2 * n_threads_ + thread);
  ClearPartials(params_.head_dim, params_.n_heads, partials);
  for (int kv_head = 0; kv_head < params_.n_kv_heads; ++kv_head) {
    const int head = kv_head * group_;
    AddKeyList(dialogue_->cache.View(layer_, kv_head, position_ + 1), q_ + int64_t{head} * params_.head_dim, group_,
               params_.attention_scale, always_.data() + begin, end - begin,
               partials + static_cast<size_t>(head) * stride);
  }
  for (int head = 0; head < params_.n_heads; ++head) {
    const size_t at = RunHead(n_runs_ + thread, head);
    largest_[at] = partials[static_cast<size_t>(head) * stride];
    sums_[at] = partials[static_cast<size_t>(head) * stride + 1];
  }
  state.n_read = (end - begin) * params_.n_kv_heads;
  if (mark_seen_ && thread == 0) MarkAlways();
}

void CodedAttention::ScanPiece(int layer, const float* q, const Piece& piece, ThreadState& state) {
  const CodedKeys::Run& run = RunOf(layer, piece);
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
    for (int run = 0; run < n_runs_ + n_threads_; ++run) largest = std::max(largest, largest_[RunHead(run, head)]);
    float sum = 0;
    for (int run = 0; run < n_runs_ + n_threads_; ++run) {
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
    const std::vector<float>& means = RunOf(layer_, piece).value_means;  // for Pick
    FetchAhead(means.data(), means.size() * sizeof(float));
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

WeightCut CodedAttention::FindCut(int unit) const {
  std::array<uint32_t, WeightBins::kBins> counts = {};
  for (const ThreadState& state : states_) {
    const uint32_t* own = state.counts.data() + static_cast<size_t>(unit) * WeightBins::kBins;
    for (size_t bin = 0; bin < counts.size(); ++bin) counts[bin] += own[bin];
  }
  return FindWeightCut(counts, wanted_);
}

void CodedAttention::Pick(const KvHeadView* kv, int thread) {
  ThreadState& state = states_[static_cast<size_t>(thread)];
  state.n_picked = 0;
  for (int unit = 0; unit < n_units_; ++unit) {
    const int kv_head = unit * unit_heads_ / group_;
    const WeightCut cut = FindCut(unit);
    for (int64_t i = thread; i < n_pieces(); i += n_threads_) {
      const Piece piece = PieceAt(i);
      if (piece.kv_head == kv_head) PickPiece(kv[kv_head], piece, unit, cut, thread);
    }
    state.unit_end[static_cast<size_t>(unit)] = state.n_picked;
    // No thread reads this before the next step.
    if (thread == 0) LeastWeight(unit) = cut.Least() * kLeastWeightDrop;
  }
  state.n_read += state.n_picked;
}

void CodedAttention::Attend(const KvHeadView* kv, int thread) {
  for (int unit = 0; unit < n_units_; ++unit) {
    const int head = unit * unit_heads_;
    float* partials = Partials(2 * thread) + static_cast<size_t>(head) * KeyListPartialFloats(params_.head_dim);
    int64_t total = 0;
    for (const ThreadState& state : states_) total += static_cast<int64_t>(state.Picked(unit).size());
    // The threads' lists one after another, cut into equal shares.
    const int64_t share_begin = total * thread / n_threads_;
    const int64_t share_end = total * (thread + 1) / n_threads_;
    int64_t list_begin = 0;
    for (const ThreadState& state : states_) {
      const std::span<const int32_t> list = state.Picked(unit);
      const auto n = static_cast<int64_t>(list.size());
      const int64_t begin = std::clamp<int64_t>(share_begin - list_begin, 0, n);
      const int64_t end = std::clamp<int64_t>(share_end - list_begin, 0, n);
      AddKeyList(kv[head / group_], q_ + int64_t{head} * params_.head_dim, unit_heads_, params_.attention_scale,
                 list.data() + begin, end - begin, partials);
      list_begin += n;
    }
  }
}

void CodedAttention::PickPiece(const KvHeadView& kv, const Piece& piece, int unit, const WeightCut& cut, int thread) {
  ThreadState& state = states_[static_cast<size_t>(thread)];
  const auto first_key = static_cast<int32_t>(piece.run * CodedKeys::kRunKeys);
  const int64_t begin = int64_t{unit} * n_scanned_ + first_key;
  const int64_t n_heavy = n_heavy_[static_cast<size_t>(piece.run * n_units_ + unit)];
  int32_t* kept = state.picked.data() + state.n_picked;
  const int64_t n = KeepHeaviest(heavy_.data() + begin, totals_.data() + begin, n_heavy, cut, first_key, kept);
  const std::span<const int32_t> picked(kept, static_cast<size_t>(n));
  state.n_picked += n;
  FetchKeyList(kv, kept, n);
  const int n_groups = ScannedGroups(piece.run);
  const CodedKeys::Run& run = RunOf(layer_, piece);
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
  DecodeAttentionMerge(problem, 3 * n_threads_, params_.n_heads * thread / n_threads_,
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
