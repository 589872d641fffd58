#include "src/model/paged_attention.h"

#include <algorithm>
#include <new>

#include "src/base/check.h"
#include "src/kernels/attention.h"
#include "src/kernels/key_list.h"
#include "src/selection/decode/page_choice.h"

namespace loopserve {
namespace {

/// Pages that a thread scores at a time: their bounds stay in its cache from one query of the group to the next.
constexpr int64_t kPiecePages = 128;

}  // namespace

struct PagedAttention::ThreadState {
  std::vector<float> split;   // of kMaxScoredQueries queries
  std::vector<float> scores;  // of a choice
  std::vector<int32_t> pages;
};

PagedAttention::PagedAttention(const HyperParams& params, int n_threads)
    : params_(params),
      n_threads_(n_threads),
      group_(params.n_heads / params.n_kv_heads),
      states_(static_cast<size_t>(n_threads)) {}

PagedAttention::~PagedAttention() = default;

bool PagedAttention::Chooses(int layer) const { return layer >= first_layer_ && n_pages_ > wanted_; }

Status PagedAttention::BeginStep(Dialogue& dialogue, int64_t position, bool mark_seen) {
  const DecodeSettings& settings = dialogue.policy.decode();
  dialogue_ = &dialogue;
  position_ = position;
  mark_seen_ = mark_seen;
  first_layer_ = settings.dense_layers;
  n_pages_ = position / kPageKeys;
  LS_CHECK(n_pages_ <= dialogue.key_pages.n_pages());
  wanted_ = PagesOfBudget(settings.budget) - 1;
  n_units_ = settings.per_query_head ? params_.n_heads : params_.n_kv_heads;
  unit_heads_ = params_.n_heads / n_units_;
  if (n_pages_ <= wanted_) return Status::Ok();  // nothing to choose
  stride_ = (n_pages_ + 3) / 4 * 4;
  part_floats_ = static_cast<size_t>(params_.n_heads) * KeyListPartialFloats(params_.head_dim);
  try {
    bounds_.resize(static_cast<size_t>(params_.n_heads * stride_));
    keys_.resize(static_cast<size_t>(n_units_));
    for (std::vector<int32_t>& keys : keys_) keys.reserve(static_cast<size_t>((wanted_ + 1) * kPageKeys));
    for (ThreadState& state : states_) {
      state.split.resize(size_t{kMaxScoredQueries} * 2 * static_cast<size_t>(params_.head_dim));
      state.scores.reserve(static_cast<size_t>(n_pages_));
      state.pages.reserve(static_cast<size_t>(n_pages_));
    }
    if (mark_seen) {
      seen_.assign(
          static_cast<size_t>(params_.n_layers) * static_cast<size_t>(n_units_) * static_cast<size_t>(position + 1), 0);
    }
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for a decode step");
  }
  if (!partials_.Reserve(static_cast<size_t>(n_threads_) * part_floats_ * sizeof(float))) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for a decode step");
  }
  return Status::Ok();
}

void PagedAttention::Scan(int layer, const float* q, int thread) {
  if (thread == 0) {
    layer_ = layer;
    q_ = q;
  }
  ThreadState& state = states_[static_cast<size_t>(thread)];
  ClearPartials(params_.head_dim, params_.n_heads, Partials(thread));
  const int64_t n_pieces = (n_pages_ + kPiecePages - 1) / kPiecePages;
  for (int64_t i = thread; i < n_pieces * params_.n_kv_heads; i += n_threads_) {
    const auto kv_head = static_cast<int>(i % params_.n_kv_heads);
    const int64_t first_page = i / params_.n_kv_heads * kPiecePages;
    const std::byte* bounds = dialogue_->key_pages.bounds(layer, kv_head) +
                              static_cast<size_t>(first_page) * PageBoundsBytes(params_.head_dim);
    for (int first = 0; first < group_; first += kMaxScoredQueries) {
      const int n = std::min(kMaxScoredQueries, group_ - first);
      const int head = kv_head * group_ + first;
      const float* split[kMaxScoredQueries];
      for (int j = 0; j < n; ++j) {
        float* target = state.split.data() + int64_t{j} * 2 * params_.head_dim;
        SplitQuery(q + int64_t{head + j} * params_.head_dim, params_.head_dim, target);
        split[j] = target;
      }
      ScorePages(bounds, params_.head_dim, std::min(kPiecePages, n_pages_ - first_page), split, n,
                 params_.attention_scale, BoundsOf(head) + first_page, stride_);
    }
  }
}

void PagedAttention::Weigh(int thread) {
  ThreadState& state = states_[static_cast<size_t>(thread)];
  for (int unit = thread; unit < n_units_; unit += n_threads_) {
    const int head = unit * unit_heads_;
    ChoosePages({BoundsOf(head), static_cast<size_t>(unit_heads_ * stride_)}, unit_heads_, stride_, n_pages_, wanted_,
                &state.scores, &state.pages);
    std::vector<int32_t>& keys = keys_[static_cast<size_t>(unit)];
    keys.clear();
    for (const int32_t page : state.pages) {
      for (int64_t t = page * kPageKeys; t < (page + 1) * kPageKeys; ++t) keys.push_back(static_cast<int32_t>(t));
    }
    for (int64_t t = n_pages_ * kPageKeys; t <= position_; ++t) keys.push_back(static_cast<int32_t>(t));
    if (!mark_seen_) continue;
    uint8_t* seen = seen_.data() + SeenBegin(layer_, unit);
    for (const int32_t key : keys) seen[key] = 1;
  }
}

void PagedAttention::Attend(const KvHeadView* kv, int thread) {
  for (int unit = 0; unit < n_units_; ++unit) {
    const std::vector<int32_t>& keys = keys_[static_cast<size_t>(unit)];
    const auto n = static_cast<int64_t>(keys.size());
    const int64_t begin = n * thread / n_threads_;
    const int head = unit * unit_heads_;
    AddKeyList(kv[head / group_], q_ + int64_t{head} * params_.head_dim, unit_heads_, params_.attention_scale,
               keys.data() + begin, n * (thread + 1) / n_threads_ - begin,
               Partials(thread) + static_cast<size_t>(head) * KeyListPartialFloats(params_.head_dim));
  }
}

void PagedAttention::Merge(float* out, int thread) {
  AttentionProblem problem;
  problem.out = out;
  problem.n_rows = 1;
  problem.n_heads = params_.n_heads;
  problem.n_kv_heads = params_.n_kv_heads;
  problem.head_dim = params_.head_dim;
  DecodeAttentionMerge(problem, n_threads_, params_.n_heads * thread / n_threads_,
                       params_.n_heads * (thread + 1) / n_threads_, partials_.data());
}

double PagedAttention::KeysRead() const {
  size_t n = 0;
  for (const std::vector<int32_t>& keys : keys_) n += keys.size();
  const double exact_bytes = 2.0 * static_cast<double>(dialogue_->cache.layout().row_bytes());
  const double bounds_bytes = static_cast<double>(PageBoundsBytes(params_.head_dim));
  return static_cast<double>(n) + bounds_bytes / exact_bytes * static_cast<double>(n_pages_ * params_.n_kv_heads);
}

const uint8_t* PagedAttention::Seen(int layer, int head) const {
  return seen_.data() + SeenBegin(layer, head / unit_heads_);
}

}  // namespace loopserve
