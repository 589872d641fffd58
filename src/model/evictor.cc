#include "src/model/evictor.h"

#include <algorithm>
#include <new>
#include <utility>

#include "src/base/clock.h"
#include "src/model/forward.h"
#include "src/model/query_weights.h"
#include "src/selection/eviction/eviction_choice.h"

namespace loopserve {
namespace {

std::vector<float> SumsOf(const KeptKeys& kept, int layer, int kv_head, int64_t n) {
  const std::span<const float> sums = kept.column_sums(layer, kv_head);
  std::vector<float> all(sums.begin(), sums.end());
  all.resize(static_cast<size_t>(n), 0.0f);  // rows of answers have had none
  return all;
}

}  // namespace

Evictor::Evictor(const Model& model, ComputeThreads& threads) : model_(model), threads_(threads) {}

std::vector<Evictor::Head> Evictor::Heads() const {
  const HyperParams& p = model_.params();
  std::vector<Head> heads;
  for (int layer = 0; layer < p.n_layers; ++layer) {
    for (int head = 0; head < p.n_kv_heads && p.window(layer) == 0; ++head) heads.push_back({layer, head});
  }
  return heads;
}

Status Evictor::EndPrompt(Dialogue& dialogue, int64_t n_new, double* selection_ms) {
  const EvictionSettings& settings = dialogue.policy.eviction();
  KeptKeys& kept = dialogue.kept;
  if (settings.method == EvictionSettings::Method::kNone) return Status::Ok();
  kept.awaited_answer = -1;
  const int64_t n_tokens = dialogue.cache.n_tokens();
  if (kept.Resume(n_tokens)) return Status::Ok();
  if (!settings.every_turn && !kept.choices().empty()) return Status::Ok();
  if (settings.observes_output) {
    kept.awaited_answer = n_tokens;
    return Status::Ok();
  }
  const auto start = Clock::now();
  // Rows of longer prompts were added up as they were computed (prefill_kept.cc).
  if (SumsColumns(settings) && n_new <= Forward::kDecodeRows) LS_RETURN_IF_ERROR(AddNewestColumnSums(dialogue, n_new));
  Status status = Compress(dialogue, std::min<int64_t>(settings.window, n_tokens));
  *selection_ms += MillisecondsSince(start);
  return status;
}

Status Evictor::BeginStep(Dialogue& dialogue, double* selection_ms) {
  const int64_t begin = dialogue.kept.awaited_answer;
  if (begin < 0 || dialogue.cache.n_tokens() - begin < dialogue.policy.eviction().window) return Status::Ok();
  return EndAnswer(dialogue, selection_ms);
}

Status Evictor::EndAnswer(Dialogue& dialogue, double* selection_ms) {
  const int64_t begin = dialogue.kept.awaited_answer;
  if (begin < 0 || dialogue.cache.n_tokens() == begin) return Status::Ok();  // an answer without tokens decides nothing
  const auto start = Clock::now();
  Status status =
      Compress(dialogue, std::min<int64_t>(dialogue.policy.eviction().window, dialogue.cache.n_tokens() - begin));
  *selection_ms += MillisecondsSince(start);
  return status;
}

KvHeadView Evictor::ViewOf(Dialogue& dialogue, const Head& head) {
  const int64_t n_tokens = dialogue.cache.n_tokens();
  if (!dialogue.kept.active()) return dialogue.cache.View(head.layer, head.kv_head, n_tokens);
  dialogue.kept.Extend(dialogue.cache, head.layer, head.kv_head, n_tokens);
  return dialogue.kept.View(head.layer, head.kv_head);
}

std::vector<float> Evictor::NewestWeights(Dialogue& dialogue, const Head& head, int64_t n_rows) const {
  const HyperParams& p = model_.params();
  const int group = p.n_heads / p.n_kv_heads;
  const KvHeadView kv = ViewOf(dialogue, head);
  const int64_t n_tokens = dialogue.cache.n_tokens();
  std::vector<ObservingQuery> queries;
  for (int64_t position = n_tokens - n_rows; position < n_tokens; ++position) {
    const float* q = dialogue.queries.Find(head.layer, position);
    // After a rewind, older ones may be held by the last choice alone, or by nobody: then fewer observe.
    if (q == nullptr) q = dialogue.kept.FindObserver(head.layer, position);
    if (q == nullptr) continue;
    // The newest rows are all held: the row attends all but those behind it.
    const int64_t n_keys = kv.n_keys - (n_tokens - 1 - position);
    for (int h = head.kv_head * group; h < (head.kv_head + 1) * group; ++h) {
      queries.push_back({q + int64_t{h} * p.head_dim, n_keys});
    }
  }
  std::vector<float> scores, weight;
  SumQueryWeights(kv, queries, p.attention_scale, &scores, &weight);
  return weight;
}

Status Evictor::AddNewestColumnSums(Dialogue& dialogue, int64_t n_rows) {
  const std::vector<Head> heads = Heads();
  return threads_.ForItems(std::ssize(heads), [&](int64_t i, int) {
    const Head& head = heads[static_cast<size_t>(i)];
    dialogue.kept.AddColumnSums(head.layer, head.kv_head, NewestWeights(dialogue, head, n_rows));
  });
}

Status Evictor::Compress(Dialogue& dialogue, int64_t window) try {
  const EvictionSettings& settings = dialogue.policy.eviction();
  const HyperParams& p = model_.params();
  const auto n_kv_heads = static_cast<size_t>(p.n_kv_heads);
  KeptKeys& kept = dialogue.kept;
  const int64_t n_tokens = dialogue.cache.n_tokens();
  const std::vector<Head> heads = Heads();
  std::vector<std::vector<float>> weights(heads.size());
  LS_RETURN_IF_ERROR(threads_.ForItems(std::ssize(heads), [&](int64_t i, int) {
    const Head& head = heads[static_cast<size_t>(i)];
    const int64_t n = kept.Count(head.layer, head.kv_head, n_tokens);
    weights[static_cast<size_t>(i)] =
        ObservesWindow(settings) ? NewestWeights(dialogue, head, window) : SumsOf(kept, head.layer, head.kv_head, n);
  }));

  const auto n_layers = static_cast<int64_t>(heads.size() / n_kv_heads);
  std::vector<std::vector<std::vector<int32_t>>> chosen(static_cast<size_t>(n_layers));
  LS_RETURN_IF_ERROR(threads_.ForItems(n_layers, [&](int64_t i, int) {
    const auto of_layer = std::span(weights).subspan(static_cast<size_t>(i) * n_kv_heads, n_kv_heads);
    chosen[static_cast<size_t>(i)] =
        ChooseKept(settings, {static_cast<int>(i), static_cast<int>(n_layers), n_tokens, window, of_layer});
  }));

  KeptChoice choice;
  choice.n_tokens = n_tokens;
  const auto n_lists = static_cast<size_t>(p.n_layers) * n_kv_heads;
  choice.positions.resize(n_lists);
  if (SumsColumns(settings)) choice.column_sums.resize(n_lists);
  bool evicts = kept.active();
  for (size_t i = 0; i < heads.size(); ++i) {
    const auto& [layer, kv_head] = heads[i];
    const size_t list = static_cast<size_t>(layer) * n_kv_heads + static_cast<size_t>(kv_head);
    const std::vector<int32_t>& indices = chosen[i / n_kv_heads][i % n_kv_heads];
    for (const int32_t index : indices) {
      choice.positions[list].push_back(static_cast<int32_t>(kept.PositionOf(layer, kv_head, index)));
      if (SumsColumns(settings)) choice.column_sums[list].push_back(weights[i][static_cast<size_t>(index)]);
    }
    evicts = evicts || indices.size() < weights[i].size();
  }
  if (!evicts) choice.positions.clear();
  kept.Add(std::move(choice), dialogue.queries);
  return kept.Prepare(dialogue.cache, 0);
} catch (const std::bad_alloc&) {
  return Status(StatusCode::kResourceExhausted, "not enough memory to choose what is kept of the context");
}

}  // namespace loopserve
