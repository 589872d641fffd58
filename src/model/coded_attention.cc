#include "src/model/coded_attention.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <new>
#include <span>

#include "src/base/check.h"
#include "src/kernels/key_list.h"

namespace loopserve {

struct CodedAttention::ThreadState {
  std::vector<uint8_t> tables;   // of kMaxCodeQueries queries
  std::vector<float> shares;     // [n_runs][n_heads]: from a weight relative to its run to a share of the head's
  std::vector<uint32_t> counts;  // [n_units][WeightBins::kBins]
  std::vector<int32_t> found;    // of a run
  int64_t n_read = 0;            // exact keys, all KV heads
};

CodedAttention::CodedAttention(const HyperParams& params, int n_threads)
    : params_(params),
      n_threads_(n_threads),
      group_(params.n_heads / params.n_kv_heads),
      states_(static_cast<size_t>(n_threads)) {}

CodedAttention::~CodedAttention() = default;

Status CodedAttention::BeginStep(const Dialogue& dialogue, int64_t position, bool mark_seen) {
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
    scores_.resize(n_heads * n_scanned);
    group_sums_.resize(n_heads * n_scanned / kCodeGroupKeys);
    totals_.resize(static_cast<size_t>(n_units_) * n_scanned);
    largest_.resize((n_runs + 1) * n_heads);
    sums_.resize((n_runs + 1) * n_heads);
    for (ThreadState& state : states_) {
      state.tables.resize(kMaxCodeQueries * CodeTableBytes(params_.head_dim));
      state.shares.resize(n_runs * n_heads);
      state.counts.resize(static_cast<size_t>(n_units_) * WeightBins::kBins);
      state.found.resize(CodedKeys::kRunKeys + 16);
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
  next_piece_ = 0;
  return Status::Ok();
}

int CodedAttention::ScannedGroups(int run) const {
  const int64_t keys = std::min(CodedKeys::kRunKeys, n_scanned_ - run * CodedKeys::kRunKeys);
  return static_cast<int>(keys / kCodeGroupKeys);
}

void CodedAttention::Scan(int layer, const float* q, int thread) {
  ThreadState& state = states_[static_cast<size_t>(thread)];
  std::ranges::fill(state.counts, 0u);
  state.n_read = 0;
  ClearPartials(params_.head_dim, params_.n_heads, Partials(2 * thread));
  ClearPartials(params_.head_dim, params_.n_heads, Partials(2 * thread + 1));
  if (thread == 0) {
    layer_ = layer;
    q_ = q;
    ClearPartials(params_.head_dim, params_.n_heads, Partials(2 * n_threads_));
    const int64_t n_keys = position_ + 1;
    for (int kv_head = 0; kv_head < params_.n_kv_heads; ++kv_head) {
      AttendAlways(dialogue_->cache.View(layer, kv_head, n_keys), kv_head);
      state.n_read += static_cast<int64_t>(always_.size());
    }
    if (mark_seen_) MarkAlways();
  }
  for (int64_t i = next_piece_.fetch_add(1); i < n_pieces(); i = next_piece_.fetch_add(1)) {
    const Piece piece = PieceAt(i);
    ScanPiece(layer, q, piece, state);
  }
}

/// Sinks and the newest keys: their softmax is known exactly from the start.
void CodedAttention::AttendAlways(const KvHeadView& kv, int kv_head) {
  const size_t stride = KeyListPartialFloats(params_.head_dim);
  const int head = kv_head * group_;
  float* partials = Partials(2 * n_threads_) + static_cast<size_t>(head) * stride;
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
    ScoreCodes(run.codes.data(), n_groups, params_.head_dim, tables, n, ScoresOf(head, piece.run), n_scanned_);
    for (int i = 0; i < n; ++i) {
      float* scores = ScoresOf(head + i, piece.run);
      if (piece.run == 0) std::fill_n(scores, CodedKeys::kSinks, -HUGE_VALF);  // always read
      float* group_sums = GroupSums(head + i, piece.run);
      const size_t at = RunHead(piece.run, head + i);
      largest_[at] = ExpGroups(scores, n_groups, group_sums);
      float sum = 0;
      for (int g = 0; g < n_groups; ++g) sum += group_sums[g];
      sums_[at] = sum;
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
  if (thread == 0) next_piece_ = 0;  // for the next layer: this one's pieces are all scanned
  ThreadState& state = states_[static_cast<size_t>(thread)];
  FindShares(state);
  for (int64_t i = thread; i < n_pieces(); i += n_threads_) {
    const Piece piece = PieceAt(i);
    const int64_t n_keys = int64_t{ScannedGroups(piece.run)} * kCodeGroupKeys;
    for (int head = piece.kv_head * group_; head < (piece.kv_head + 1) * group_; head += unit_heads_) {
      const int unit = head / unit_heads_;
      float* totals = totals_.data() + int64_t{unit} * n_scanned_ + piece.run * CodedKeys::kRunKeys;
      AddUpWeights(ScoresOf(head, piece.run), n_scanned_, state.shares.data() + RunHead(piece.run, head), unit_heads_,
                   n_keys, totals);
      CountWeights({totals, static_cast<size_t>(n_keys)},
                   std::span(state.counts).subspan(static_cast<size_t>(unit) * WeightBins::kBins, WeightBins::kBins));
    }
  }
}

void CodedAttention::Attend(const KvHeadView* kv, int thread) {
  for (int unit = 0; unit < n_units_; ++unit) {
    const int kv_head = unit * unit_heads_ / group_;
    std::array<uint32_t, WeightBins::kBins> counts = {};
    for (const ThreadState& state : states_) {
      const uint32_t* own = state.counts.data() + static_cast<size_t>(unit) * WeightBins::kBins;
      for (size_t bin = 0; bin < counts.size(); ++bin) counts[bin] += own[bin];
    }
    const WeightCut cut = FindWeightCut(counts, wanted_);
    for (int64_t i = thread; i < n_pieces(); i += n_threads_) {
      const Piece piece = PieceAt(i);
      if (piece.kv_head == kv_head) AttendPiece(kv[kv_head], piece, unit, cut, thread);
    }
  }
}

void CodedAttention::AttendPiece(const KvHeadView& kv, const Piece& piece, int unit, const WeightCut& cut, int thread) {
  ThreadState& state = states_[static_cast<size_t>(thread)];
  const int64_t first_key = piece.run * CodedKeys::kRunKeys;
  const int n_groups = ScannedGroups(piece.run);
  const int64_t n_keys = int64_t{n_groups} * kCodeGroupKeys;
  const float* totals = totals_.data() + int64_t{unit} * n_scanned_ + first_key;
  int64_t n = FindAtLeast(totals, n_keys, WeightBins::LeastOf(cut.bin), state.found.data());
  n = KeepHeaviest({totals, static_cast<size_t>(n_keys)}, cut, {state.found.data(), static_cast<size_t>(n)});
  state.n_read += n;
  const size_t stride = KeyListPartialFloats(params_.head_dim);
  const int head = unit * unit_heads_;
  const CodedKeys::Run& run = dialogue_->coded_keys.run(layer_, piece.kv_head, piece.run);
  for (int i = head; i < head + unit_heads_; ++i) {
    // What is read exactly does not count by estimate too.
    float* group_sums = GroupSums(i, piece.run);
    const float* weights = ScoresOf(i, piece.run);
    for (int64_t k = 0; k < n; ++k) group_sums[state.found[k] / kCodeGroupKeys] -= weights[state.found[k]];
    for (int g = 0; g < n_groups; ++g) group_sums[g] = std::max(0.0f, group_sums[g]);
    AddWeightedRows(run.value_means.data(), n_groups, params_.head_dim, group_sums, largest_[RunHead(piece.run, i)],
                    Partials(2 * thread + 1) + static_cast<size_t>(i) * stride);
  }
  for (int64_t k = 0; k < n; ++k) state.found[k] += static_cast<int32_t>(first_key);
  AddKeyList(kv, q_ + int64_t{head} * params_.head_dim, unit_heads_, params_.attention_scale, state.found.data(), n,
             Partials(2 * thread) + static_cast<size_t>(head) * stride);
  if (mark_seen_) {
    uint8_t* seen = seen_.data() + SeenBegin(layer_, unit);
    for (int64_t k = 0; k < n; ++k) seen[state.found[k]] = 1;
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
