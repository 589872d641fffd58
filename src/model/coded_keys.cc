#include "src/model/coded_keys.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <numeric>
#include <span>
#include <utility>

#include "src/base/memory_status.h"
#include "src/kernels/attention.h"
#include "src/selection/decode/codebook.h"

namespace loopserve {
namespace {

/// A new run of fewer groups takes the codebook of the run before: too few keys to know their spread.
constexpr int64_t kFitGroups = 4;

std::vector<float> QueryEnergy(const RecentQueries& queries, const HyperParams& params, int layer, int kv_head,
                               int64_t n_tokens) {
  const int group = params.n_heads / params.n_kv_heads;
  std::vector<float> energy(static_cast<size_t>(params.head_dim), 0.0f);
  for (int64_t position = n_tokens - queries.n_positions(); position < n_tokens; ++position) {
    const float* q = queries.Find(layer, position);
    if (q == nullptr) continue;
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const float* row = q + int64_t{head} * params.head_dim;
      for (int i = 0; i < params.head_dim; ++i) energy[static_cast<size_t>(i)] += row[i] * row[i];
    }
  }
  // Only proportions matter; nothing known: all alike.
  if (std::ranges::all_of(energy, [](float x) { return x == 0; })) std::ranges::fill(energy, 1.0f);
  return energy;
}

bool AreFinite(std::span<const float> numbers) {
  return std::ranges::all_of(numbers, [](float x) { return std::isfinite(x); });
}

void AddMeanValue(const KvHeadView& kv, int64_t first_key, std::vector<float>* row, CodedKeys::Run* run) {
  const auto head_dim = static_cast<size_t>(kv.head_dim);
  const size_t begin = run->value_means.size();
  run->value_means.resize(begin + head_dim, 0.0f);
  const int64_t first = first_key == 0 ? CodedKeys::kSinks : 0;
  const float share = 1.0f / static_cast<float>(kCodeGroupKeys - first);
  for (int64_t key = first_key + first; key < first_key + kCodeGroupKeys; ++key) {
    LoadKvRow(kv.type, kv.Value(key), kv.head_dim, row->data());
    for (size_t i = 0; i < head_dim; ++i) run->value_means[begin + i] += share * (*row)[i];
  }
}

/// Forgets groups behind the first n.
void Trim(CodedKeys::Run* run, int n) {
  if (run->n_groups <= n) return;
  run->codes.resize(static_cast<size_t>(n) * CodeGroupBytes(run->book.head_dim));
  run->value_means.resize(static_cast<size_t>(n) * static_cast<size_t>(run->book.head_dim));
  run->n_groups = n;
}

}  // namespace

size_t CodedKeys::RunBytes(const HyperParams& params) {
  const auto dim = static_cast<size_t>(params.head_dim);
  const size_t book = dim * (2 * sizeof(float) + sizeof(KeyCodebook::Place));
  const size_t group = CodeGroupBytes(params.head_dim) + dim * sizeof(float);
  size_t n_heads = 0;
  for (int layer = 0; layer < params.n_layers; ++layer) {
    if (params.window(layer) == 0) n_heads += static_cast<size_t>(params.n_kv_heads);
  }
  return n_heads * (book + kRunGroups * group);
}

size_t CodedKeys::bytes() const {
  return std::accumulate(runs_.begin(), runs_.end(), size_t{0},
                         [](size_t sum, const auto& run) { return sum + run->charge.bytes(); });
}

size_t CodedKeys::exclusive_bytes() const {
  return std::accumulate(runs_.begin(), runs_.end(), size_t{0}, [](size_t sum, const auto& run) {
    return sum + (run.use_count() == 1 ? run->charge.bytes() : 0);
  });
}

Result<std::shared_ptr<CodedKeys::SharedRun>> CodedKeys::NewRun(const HyperParams& params,
                                                                const std::shared_ptr<KvBudget>& budget) {
  try {
    auto run = std::make_shared<SharedRun>();
    if (!run->charge.Resize(budget, RunBytes(params)))
      return Status(StatusCode::kResourceExhausted, "the KV budget has no room for the codes of keys");
    run->heads.resize(static_cast<size_t>(params.n_layers) * static_cast<size_t>(params.n_kv_heads));
    for (size_t i = 0; i < run->heads.size(); ++i) {
      if (params.window(static_cast<int>(i) / params.n_kv_heads) > 0) continue;
      run->heads[i].codes.reserve(kRunGroups * CodeGroupBytes(params.head_dim));
      run->heads[i].value_means.reserve(kRunGroups * static_cast<size_t>(params.head_dim));
    }
    return run;
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for the codes of keys");
  }
}

Status CodedKeys::MakeWritable(const HyperParams& params, const std::shared_ptr<KvBudget>& budget, int64_t end_group) {
  const auto last_groups = static_cast<int>(n_keys_ / kCodeGroupKeys % kRunGroups);
  if (last_groups > 0) {
    std::shared_ptr<SharedRun>& last = runs_.back();
    // As in KvCache::ReserveTokens: what a copy on another thread read comes before its giving up.
    if (last.use_count() == 1) std::shared_ptr<SharedRun>(last).reset();
    if (last.use_count() > 1) {
      LS_ASSIGN_OR_RETURN(const std::shared_ptr<SharedRun> own, NewRun(params, budget));
      for (size_t i = 0; i < own->heads.size(); ++i) {
        const Run& from = last->heads[i];
        Run& to = own->heads[i];
        to.n_groups = from.n_groups;
        to.book = from.book;
        to.codes.insert(to.codes.end(), from.codes.begin(), from.codes.end());
        to.value_means.insert(to.value_means.end(), from.value_means.begin(), from.value_means.end());
      }
      last = own;
    }
    for (Run& run : last->heads) Trim(&run, last_groups);
  }
  while (static_cast<int64_t>(runs_.size()) * kRunGroups < end_group) {
    LS_ASSIGN_OR_RETURN(std::shared_ptr<SharedRun> run, NewRun(params, budget));
    runs_.push_back(std::move(run));
  }
  return Status::Ok();
}

bool CodedKeys::ExtendHead(const KvCache& cache, const std::vector<float>& query_energy, int layer, int kv_head,
                           int64_t end_group) {
  const KvHeadView kv = cache.View(layer, kv_head, end_group * kCodeGroupKeys);
  const auto head = static_cast<size_t>(int64_t{layer} * n_kv_heads_ + kv_head);
  const auto head_dim = static_cast<size_t>(kv.head_dim);
  const size_t group_floats = kCodeGroupKeys * head_dim;
  std::vector<float> keys, row(head_dim);
  for (int64_t group = n_keys_ / kCodeGroupKeys; group < end_group;) {
    const int64_t n = std::min(end_group - group, kRunGroups - group % kRunGroups);
    keys.resize(static_cast<size_t>(n) * group_floats);
    for (int64_t i = 0; i < n * kCodeGroupKeys; ++i) {
      LoadKvRow(kv.type, kv.Key(group * kCodeGroupKeys + i), kv.head_dim,
                keys.data() + static_cast<size_t>(i) * head_dim);
    }
    if (!AreFinite(keys)) return false;
    const auto r = static_cast<size_t>(group / kRunGroups);
    Run& run = runs_[r]->heads[head];
    if (group % kRunGroups == 0) {
      if (n >= kFitGroups || r == 0) {
        const size_t skipped = group == 0 ? CodedKeys::kSinks * head_dim : 0;
        if (!FitCodebook(std::span<const float>(keys).subspan(skipped), query_energy, &run.book)) return false;
      } else {
        run.book = runs_[r - 1]->heads[head].book;
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      run.codes.resize(run.codes.size() + CodeGroupBytes(kv.head_dim));
      EncodeKeys(run.book, keys.data() + static_cast<size_t>(i) * group_floats,
                 run.codes.data() + run.codes.size() - CodeGroupBytes(kv.head_dim));
      AddMeanValue(kv, (group + i) * kCodeGroupKeys, &row, &run);
      ++run.n_groups;
    }
    if (!AreFinite(run.value_means)) return false;
    group += n;
  }
  return true;
}

Result<bool> CodedKeys::Extend(const KvCache& cache, const RecentQueries& queries, const HyperParams& params,
                               ComputeThreads& threads) {
  const int64_t end_group = cache.n_tokens() / kCodeGroupKeys;
  if (end_group * kCodeGroupKeys <= n_keys_) return true;
  n_kv_heads_ = params.n_kv_heads;
  const int64_t before = n_keys_;
  std::atomic<bool> is_finite = true;
  Status status = OrOutOfMemory("the codes of keys", [&] { return MakeWritable(params, cache.budget(), end_group); });
  if (status.ok())
    status = threads.ForItems(int64_t{params.n_layers} * n_kv_heads_, [&](int64_t item, int) {
      const int layer = static_cast<int>(item / n_kv_heads_);
      const int kv_head = static_cast<int>(item % n_kv_heads_);
      if (params.window(layer) > 0) return;
      const std::vector<float> energy = QueryEnergy(queries, params, layer, kv_head, cache.n_tokens());
      if (!ExtendHead(cache, energy, layer, kv_head, end_group)) is_finite = false;
    });
  n_keys_ = end_group * kCodeGroupKeys;
  if (!status.ok() || !is_finite) Truncate(before);
  LS_RETURN_IF_ERROR(status);
  return is_finite.load();
}

void CodedKeys::Truncate(int64_t n_tokens) {
  const int64_t groups = std::min(n_tokens, n_keys_) / kCodeGroupKeys;
  n_keys_ = groups * kCodeGroupKeys;
  runs_.resize(static_cast<size_t>(n_runs()));
}

}  // namespace loopserve
