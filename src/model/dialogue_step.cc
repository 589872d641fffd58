#include "src/model/dialogue_step.h"

#include <algorithm>

#include "src/base/clock.h"
#include "src/model/prefill_layer.h"

namespace loopserve {

DialogueStep::DialogueStep(const Model& model, int n_threads)
    : model_(model),
      n_threads_(n_threads),
      keys_(model.params(), n_threads),
      reads_(static_cast<size_t>(model.params().n_layers)),
      views_(static_cast<size_t>(model.params().n_kv_heads)) {
  const HyperParams& p = model.params();
  problem_.n_heads = p.n_heads;
  problem_.n_kv_heads = p.n_kv_heads;
  problem_.head_dim = p.head_dim;
  problem_.scale = p.attention_scale;
  problem_.q_row_stride = problem_.out_row_stride = p.q_width();
  problem_.kv = views_.data();
}

Status DialogueStep::Begin(Dialogue& dialogue, int64_t n_rows, int64_t first_row, DecodeSparsity& sparsity) {
  LS_RETURN_IF_ERROR(dialogue.cache.ReserveTokens(n_rows));
  dialogue_ = &dialogue;
  first_position_ = dialogue.cache.n_tokens();
  first_row_ = first_row;
  n_rows_ = n_rows;
  preparing_ms_ = selection_ms_ = keys_read_ = keys_held_ = computed_pairs_ = causal_pairs_ = 0;
  if (n_rows > 1) {
    dialogue.EndAnswer();
  } else {
    LS_RETURN_IF_ERROR(sparsity.BeginStep(dialogue, &keys_, &preparing_ms_));
  }
  n_choices_ = dialogue.working_sets.n_renewed;
  keys_read_ = WorkingSetKeeper::KeysReadToChoose(dialogue);
  LS_RETURN_IF_ERROR(dialogue.kept.Prepare(dialogue.cache, n_rows));  // the nodes add rows, and cannot fail
  for (int layer = 0; layer < model_.params().n_layers; ++layer) {
    reads_[static_cast<size_t>(layer)] = sparsity.Of(dialogue, layer, keys_.by_token());
    n_choices_ += ReadsOf(layer) == Reads::kByToken ? 1 : 0;
  }
  return ReservePartials();
}

Status DialogueStep::ReservePartials() {
  AttentionProblem shape = problem_;
  shape.n_rows = n_rows_;
  AttentionProblem head = shape;
  head.n_heads /= head.n_kv_heads;
  head.n_kv_heads = 1;
  head_partial_bytes_ = DecodePartialBytes(head, n_threads_);
  const size_t bytes =
      std::max(DecodePartialBytes(shape, n_threads_), head_partial_bytes_ * static_cast<size_t>(shape.n_kv_heads));
  if (partials_.Reserve(bytes)) return Status::Ok();
  return Status(StatusCode::kResourceExhausted, "not enough memory for a decode step");
}

void DialogueStep::Store(int layer, const float* q, const float* rows, int thread) {
  if (thread == 0) {
    Dialogue& dialogue = *dialogue_;
    const int64_t kv_width = model_.params().kv_width();
    dialogue.cache.StoreRows(layer, first_position_, n_rows_, rows, rows + kv_width, 2 * kv_width);
    dialogue.queries.Store(layer, first_position_, n_rows_, q);
    if (ReadsOf(layer) == Reads::kWorkingSet) WorkingSetKeeper::Append(dialogue, layer, first_position_);
    for (int head = 0; ReadsOf(layer) == Reads::kKept && head < problem_.n_kv_heads; ++head) {
      dialogue.kept.Extend(dialogue.cache, layer, head, first_position_ + n_rows_);
    }
    FindKeys(layer);
  }
  if (ReadsOf(layer) != Reads::kByToken) return;
  const auto start = Clock::now();
  keys_.by_token()->Scan(layer, q, thread);
  if (thread == 0) selection_ms_ += MillisecondsSince(start);
  keys_.by_token()->AttendAlways(thread);
}

/// The keys of each KV head, and the rows that look for them; the step's rows are stored.
void DialogueStep::FindKeys(int layer) {
  const int64_t n_keys = first_position_ + n_rows_;
  problem_.window = model_.params().window(layer);
  const int64_t held = problem_.window > 0 ? std::min(n_keys, problem_.window) : n_keys;
  for (int head = 0; head < problem_.n_kv_heads; ++head) {
    KvHeadView& view = views_[static_cast<size_t>(head)];
    if (ReadsOf(layer) == Reads::kWorkingSet) {
      view = WorkingSetKeeper::View(*dialogue_, layer, head);
    } else if (ReadsOf(layer) == Reads::kKept) {
      view = dialogue_->kept.View(layer, head);
    } else {
      view = dialogue_->cache.View(layer, head, n_keys);
    }
    keys_held_ += static_cast<double>(held);
    if (ReadsOf(layer) != Reads::kByToken) keys_read_ += static_cast<double>(HasOwnKeys(layer) ? view.n_keys : held);
  }
  problem_.n_rows = n_rows_;
  problem_.first_position = first_position_;
  computed_pairs_ += PairsHeld(problem_);
  causal_pairs_ += CausalPairs(n_rows_, first_position_ + 1) * problem_.n_heads;
}

void DialogueStep::Weigh(int layer, int thread) {
  if (ReadsOf(layer) != Reads::kByToken) return;
  const auto start = Clock::now();
  keys_.by_token()->Weigh(thread);
  // What follows counts as attention, for all that Pick is both.
  if (thread == 0) selection_ms_ += MillisecondsSince(start);
}

void DialogueStep::Pick(int layer, int thread) {
  if (ReadsOf(layer) == Reads::kByToken) keys_.by_token()->Pick(views_.data(), thread);
}

void DialogueStep::Attend(int layer, const float* q, int thread) {
  if (ReadsOf(layer) == Reads::kByToken) return keys_.by_token()->Attend(views_.data(), thread);
  AttentionProblem problem = problem_;
  problem.q = q;
  if (!HasOwnKeys(layer)) {
    DecodeAttentionPartial(problem, thread, n_threads_, partials_.data());
    return;
  }
  for (int head = 0; head < problem.n_kv_heads; ++head) {
    DecodeAttentionPartial(KvHeadProblem(problem, head), thread, n_threads_, HeadPartials(head));
  }
}

void DialogueStep::Merge(int layer, float* out, int thread) {
  AttentionProblem problem = problem_;
  problem.out = out;
  if (ReadsOf(layer) == Reads::kByToken) {
    keys_.by_token()->Merge(out, thread);
    if (thread == 0) keys_read_ += keys_.by_token()->KeysRead();
  } else if (HasOwnKeys(layer)) {
    const int group = problem.n_heads / problem.n_kv_heads;
    for (int head = thread; head < problem.n_kv_heads; head += n_threads_) {
      DecodeAttentionMerge(KvHeadProblem(problem, head), n_threads_, 0, group, HeadPartials(head));
    }
  } else {
    DecodeAttentionMerge(problem, n_threads_, problem.n_heads * thread / n_threads_,
                         problem.n_heads * (thread + 1) / n_threads_, partials_.data());
  }
}

void DialogueStep::AddFigures(ForwardStats* stats) const {
  stats->decode_keys_read += keys_read_;
  stats->decode_keys_held += keys_held_;
  stats->decode_choices += n_choices_;
  stats->attention.computed_pairs += computed_pairs_;
  stats->attention.causal_pairs += causal_pairs_;
}

}  // namespace loopserve
