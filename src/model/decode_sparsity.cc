#include "src/model/decode_sparsity.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/kernels/key_list.h"
#include "src/kernels/row_scores.h"

namespace loopserve {
namespace {

/// Contexts up to this part longer than the budget are read in full: too little would be saved.
constexpr int64_t kMinSaving = 4;  // a quarter

using Method = DecodeSettings::Method;

bool ChoosesByToken(const DecodeSettings& settings) { return settings.method != Method::kWorkingSets; }

bool IsWorthwhile(const DecodeSettings& settings, int64_t n_keys) {
  if (settings.budget == 0 || n_keys < settings.min_keys) return false;
  // Steps of pages look themselves whether there is more than the budget, as published.
  return settings.method == Method::kPages || n_keys > settings.budget + settings.budget / kMinSaving;
}

}  // namespace

DecodeSparsity::DecodeSparsity(const Model& model, ComputeThreads& threads)
    : model_(model), threads_(threads), keeper_(model, threads) {}

Result<bool> DecodeSparsity::ExtendKeys(Dialogue& dialogue) {
  const DecodeSettings& settings = dialogue.policy.decode();
  if (settings.method != Method::kPages) {
    return dialogue.coded_keys.Extend(dialogue.cache, dialogue.queries, model_.params(), threads_);
  }
  LS_RETURN_IF_ERROR(dialogue.key_pages.Extend(dialogue.cache, model_.params(), settings.dense_layers, threads_));
  return true;
}

Status DecodeSparsity::EndPrefill(Dialogue& dialogue, double* selection_ms) {
  const DecodeSettings& settings = dialogue.policy.decode();
  if (!ChoosesByToken(settings) || !IsWorthwhile(settings, dialogue.cache.n_tokens())) return Status::Ok();
  const auto start = Clock::now();
  // Keys that cannot be coded are found again by Begin, which then reads every key.
  Status status = ExtendKeys(dialogue).status();
  *selection_ms += MillisecondsSince(start);
  return status;
}

Status DecodeSparsity::Begin(Dialogue& dialogue, bool measure, double* selection_ms) {
  const DecodeSettings& settings = dialogue.policy.decode();
  dialogue.EndAnswer();
  dialogue.measures_coverage = measure;
  if (!IsWorthwhile(settings, dialogue.cache.n_tokens())) return Status::Ok();
  const auto start = Clock::now();
  Status status;
  if (ChoosesByToken(settings)) {
    Result<bool> usable = ExtendKeys(dialogue);
    if (usable.ok()) dialogue.chooses_by_token = *usable;
    status = usable.status();
  } else {
    status = keeper_.Begin(dialogue);
  }
  *selection_ms += MillisecondsSince(start);
  return status;
}

Status DecodeSparsity::BeginStep(Dialogue& dialogue, StepKeys* keys, double* selection_ms) {
  if (!dialogue.chooses_by_token) return keeper_.Renew(dialogue, selection_ms);
  const auto start = Clock::now();
  keys->by_token_ = &keys->coded_;
  if (dialogue.policy.decode().method == Method::kPages) keys->by_token_ = &keys->paged_;
  LS_ASSIGN_OR_RETURN(dialogue.chooses_by_token, ExtendKeys(dialogue));
  if (dialogue.chooses_by_token)
    LS_RETURN_IF_ERROR(keys->by_token_->BeginStep(dialogue, dialogue.cache.n_tokens(), dialogue.measures_coverage));
  *selection_ms += MillisecondsSince(start);
  return Status::Ok();
}

DecodeSparsity::Reads DecodeSparsity::Of(const Dialogue& dialogue, int layer, const TokenAttention* by_token) const {
  if (model_.params().window(layer) > 0 || !dialogue.decodes_sparsely()) return Reads::kEverything;
  if (dialogue.kept.active()) return Reads::kKept;
  if (!dialogue.chooses_by_token) return Reads::kWorkingSet;
  return by_token->Chooses(layer) ? Reads::kByToken : Reads::kEverything;
}

double DecodeSparsity::SeenShare(const Dialogue& dialogue, const TokenAttention* by_token, int layer,
                                 int kv_head) const {
  const HyperParams& p = model_.params();
  const int64_t n_keys = dialogue.cache.n_tokens();
  const float* q = dialogue.queries.Find(layer, n_keys - 1);
  if (q == nullptr) return 0;
  const KvHeadView kv = dialogue.cache.View(layer, kv_head, n_keys);
  const int group = p.n_heads / p.n_kv_heads;
  std::vector<uint8_t> of_set;
  if (dialogue.kept.active()) {
    of_set = dialogue.kept.Seen(layer, kv_head, n_keys);
  } else if (!dialogue.chooses_by_token) {
    of_set = WorkingSetKeeper::Seen(dialogue, layer, kv_head);
  }
  const auto n = static_cast<size_t>(n_keys);
  std::vector<float> scores((n + 15) / 16 * 16);
  double share = 0;
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const float* query = q + int64_t{head} * p.head_dim;
    ScoreKeys(kv, &query, 1, p.attention_scale, n_keys, scores.data(), static_cast<int64_t>(scores.size()));
    std::fill(scores.begin() + static_cast<ptrdiff_t>(n), scores.end(), -HUGE_VALF);
    const float sum = ExpInPlace(scores.data(), scores.size(), LargestScore(scores.data(), n, -FLT_MAX));
    const uint8_t* seen = dialogue.chooses_by_token ? by_token->Seen(layer, head) : of_set.data();
    double held = 0;
    for (size_t t = 0; t < n; ++t) held += seen[t] != 0 ? scores[t] : 0.0f;
    share += held / sum / group;
  }
  return share;
}

Result<std::vector<double>> DecodeSparsity::MeasureCoverage(Dialogue& dialogue, const TokenAttention* by_token) {
  LS_CHECK(dialogue.measures_coverage);
  const HyperParams& p = model_.params();
  std::vector<int> layers;
  for (int layer = 0; layer < p.n_layers; ++layer) {
    if (Of(dialogue, layer, by_token) != Reads::kEverything) layers.push_back(layer);
  }
  std::vector<double> shares(layers.size() * static_cast<size_t>(p.n_kv_heads), 0.0);
  LS_RETURN_IF_ERROR(threads_.ForItems(static_cast<int64_t>(shares.size()), [&](int64_t i, int) {
    const auto layer = static_cast<size_t>(i / p.n_kv_heads);
    shares[static_cast<size_t>(i)] = SeenShare(dialogue, by_token, layers[layer], static_cast<int>(i % p.n_kv_heads));
  }));
  return shares;
}

}  // namespace loopserve
