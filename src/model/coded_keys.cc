#include "src/model/coded_keys.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>

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

}  // namespace

bool CodedKeys::ExtendHead(const KvCache& cache, const std::vector<float>& query_energy, int layer, int kv_head,
                           int64_t end_group) {
  const KvHeadView kv = cache.View(layer, kv_head, end_group * kCodeGroupKeys);
  std::vector<Run>& runs = heads_[static_cast<size_t>(int64_t{layer} * n_kv_heads_ + kv_head)];
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
    if (group % kRunGroups == 0) {
      Run run;
      if (n >= kFitGroups || runs.empty()) {
        const size_t skipped = group == 0 ? CodedKeys::kSinks * head_dim : 0;
        if (!FitCodebook(std::span<const float>(keys).subspan(skipped), query_energy, &run.book)) return false;
      } else {
        run.book = runs.back().book;
      }
      runs.push_back(std::move(run));
    }
    Run& run = runs.back();
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
  heads_.resize(static_cast<size_t>(params.n_layers) * static_cast<size_t>(params.n_kv_heads));
  const int64_t before = n_keys_;
  std::atomic<bool> is_finite = true;
  Status status = threads.ForItems(int64_t{params.n_layers} * n_kv_heads_, [&](int64_t item, int) {
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
  const auto n_runs = static_cast<size_t>((groups + kRunGroups - 1) / kRunGroups);
  for (std::vector<Run>& runs : heads_) {
    if (runs.size() > n_runs) runs.resize(n_runs);
    if (runs.size() < n_runs || runs.empty()) continue;  // a window, or what a failed Extend did not reach
    Run& last = runs.back();
    const auto kept = static_cast<size_t>(groups - static_cast<int64_t>(n_runs - 1) * kRunGroups);
    last.codes.resize(kept * CodeGroupBytes(last.book.head_dim));
    last.value_means.resize(kept * static_cast<size_t>(last.book.head_dim));
    last.n_groups = static_cast<int>(kept);
  }
}

}  // namespace loopserve
