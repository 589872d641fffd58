#include "src/model/forward.h"

#include <algorithm>

#include "src/base/scoped_flag.h"
#include "src/model/decode_graph.h"
#include "src/model/evictor.h"
#include "src/model/prefill.h"

namespace loopserve {
namespace {

LinearPath Resolve(LinearPath wanted) {
  if (wanted != LinearPath::kAuto) return wanted;
  if (Gemm::IsAvailable(GemmMath::kBf16)) return LinearPath::kBf16;
  return Gemm::IsAvailable(GemmMath::kF32) ? LinearPath::kF32 : LinearPath::kQuantized;
}

}  // namespace

Result<std::unique_ptr<Forward>> Forward::Create(const Model& model, ComputeThreads& threads,
                                                 const ForwardOptions& options) {
  std::unique_ptr<Forward> forward(new Forward);
  forward->linear_path_ = Resolve(options.linear_path);
  if (forward->linear_path_ != LinearPath::kQuantized) {
    LS_ASSIGN_OR_RETURN(forward->gemm_,
                        Gemm::Create(forward->linear_path_ == LinearPath::kBf16 ? GemmMath::kBf16 : GemmMath::kF32));
    LS_ASSIGN_OR_RETURN(forward->logits_gemm_, Gemm::Create(GemmMath::kF32));
  }
  forward->decode_ = std::make_unique<DecodeGraph>(model, threads);
  forward->prefill_ = std::make_unique<Prefill>(model, forward->gemm_.get(), forward->logits_gemm_.get(), threads,
                                                options.weight_cache_bytes);
  forward->evictor_ = std::make_unique<Evictor>(model, threads);
  return forward;
}

Forward::~Forward() = default;

Status Forward::Run(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
                    const LogitsCallback& on_logits, std::vector<float>* last_logits, ForwardStats* stats) {
  KvCache& cache = dialogue.cache;
  const auto n = static_cast<int64_t>(tokens.size());
  if (n <= kDecodeRows) {
    if (control.cancel != nullptr && control.cancel->load(std::memory_order_relaxed)) {
      return Status(StatusCode::kCancelled, "cancelled");
    }
    std::span<const float> logits;
    const int64_t first_position = cache.n_tokens();
    double selection_ms = 0;
    LS_RETURN_IF_ERROR(evictor_->BeginStep(dialogue, &selection_ms));
    if (stats != nullptr) stats->attention.selection_ms += selection_ms;
    Status status = decode_->Run(dialogue, tokens, static_cast<bool>(on_logits), &logits, stats);
    if (!status.ok()) {
      dialogue.kept.Truncate(first_position, first_position);  // it may have been extended
      return status;
    }
    cache.CommitTokens(n);
    const size_t n_vocab = logits.size() / (on_logits ? tokens.size() : 1);
    for (int64_t r = 0; on_logits && r < n; ++r) {
      on_logits(first_position + r, logits.subspan(static_cast<size_t>(r) * n_vocab, n_vocab));
    }
    last_logits->assign(logits.end() - static_cast<int64_t>(n_vocab), logits.end());
    return Status::Ok();
  }
  if (in_prefill_) return Status(StatusCode::kInvalidArgument, "another session is reading a prompt");
  const ScopedFlag reading(in_prefill_);
  return RunPrefill(dialogue, tokens, control, on_logits, last_logits, stats);
}

Status Forward::RunPrefill(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
                           const LogitsCallback& on_logits, std::vector<float>* last_logits, ForwardStats* stats) {
  KvCache& cache = dialogue.cache;
  const auto n = static_cast<int64_t>(tokens.size());
  const int64_t before = cache.n_tokens();
  for (int64_t first = 0; first < n; first += Prefill::kPassRows) {
    const int64_t rows = std::min(Prefill::kPassRows, n - first);
    Status status = prefill_->Run(dialogue, tokens.subspan(static_cast<size_t>(first), static_cast<size_t>(rows)),
                                  control, on_logits, static_cast<double>(first) / static_cast<double>(n),
                                  static_cast<double>(rows) / static_cast<double>(n), last_logits, stats);
    if (!status.ok()) {
      dialogue.Truncate(before);
      return status;
    }
    cache.CommitTokens(rows);
  }
  Status status = EndPrefill(dialogue, n, &stats->attention.selection_ms);
  if (!status.ok()) dialogue.Truncate(before);
  return status;
}

Status Forward::EndPrefill(Dialogue& dialogue, int64_t n_rows, double* selection_ms) {
  return n_rows > kDecodeRows ? decode_->sparsity().EndPrefill(dialogue, selection_ms) : Status::Ok();
}

Status Forward::EndPrompt(Dialogue& dialogue, int64_t n_new, ForwardStats* stats) {
  return evictor_->EndPrompt(dialogue, n_new, &stats->attention.selection_ms);
}

Status Forward::FinishAnswer(Dialogue& dialogue, ForwardStats* stats) {
  return evictor_->EndAnswer(dialogue, &stats->attention.selection_ms);
}

Status Forward::BeginAnswer(Dialogue& dialogue, bool measure, ForwardStats* stats) {
  return decode_->sparsity().Begin(dialogue, measure, &stats->attention.selection_ms);
}

void Forward::EndAnswer(Dialogue& dialogue) { dialogue.EndAnswer(); }

Result<std::vector<double>> Forward::MeasureDecodeCoverage(Dialogue& dialogue) {
  return decode_->sparsity().MeasureCoverage(dialogue);
}

}  // namespace loopserve
