#include "src/model/forward.h"

#include <algorithm>
#include <array>
#include <string>

#include "src/base/check.h"
#include "src/base/memory_status.h"
#include "src/model/decode_graph.h"
#include "src/model/evictor.h"
#include "src/model/prefill.h"
#include "src/model/prefill_weights.h"
#include "src/model/stored_math.h"

namespace loopserve {
namespace {

LinearPath Resolve(LinearPath wanted) {
  if (wanted != LinearPath::kAuto) return wanted;
  if (Gemm::IsAvailable(GemmMath::kBf16)) return LinearPath::kBf16;
  return Gemm::IsAvailable(GemmMath::kF32) ? LinearPath::kF32 : LinearPath::kQuantized;
}

GemmMath MathOf(LinearPath path) {
  if (path == LinearPath::kInt8) return GemmMath::kInt8;
  return path == LinearPath::kBf16 ? GemmMath::kBf16 : GemmMath::kF32;
}

constexpr char kStep[] = "a step of an answer";

}  // namespace

Result<std::unique_ptr<Forward>> Forward::Create(const Model& model, ComputeThreads& threads,
                                                 const ForwardOptions& options) {
  std::unique_ptr<Forward> forward(new Forward(model, threads));
  forward->linear_path_ = Resolve(options.linear_path);
  if (forward->linear_path_ != LinearPath::kQuantized) {
    LS_ASSIGN_OR_RETURN(forward->gemm_, Gemm::Create(MathOf(forward->linear_path_)));
    if (Gemm::IsAvailable(GemmMath::kF32)) {
      LS_ASSIGN_OR_RETURN(forward->logits_gemm_, Gemm::Create(GemmMath::kF32));
    }
    forward->weights_ = std::make_unique<PrefillWeights>(model, *forward->gemm_, threads, options.weight_cache_bytes);
  }
  forward->decode_ = std::make_unique<DecodeGraph>(model, threads);
  forward->evictor_ = std::make_unique<Evictor>(model, threads);
  forward->shares_steps_ = StoredMath::KnowsAll(model);
  return forward;
}

Forward::Forward(const Model& model, ComputeThreads& threads) : model_(model), threads_(threads) {}
Forward::~Forward() = default;

Prefill& Forward::PrefillOf(size_t depth) {
  while (prefills_.size() <= depth) {
    prefills_.push_back(std::make_unique<Prefill>(model_, gemm_.get(), weights_.get(), logits_gemm_.get(), threads_));
  }
  return *prefills_[depth];
}

Status Forward::Run(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
                    const LogitsCallback& on_logits, std::vector<float>* last_logits, ForwardStats* stats) {
  const auto n = static_cast<int64_t>(tokens.size());
  if (n <= kDecodeRows) {
    if (control.cancel != nullptr && control.cancel->load(std::memory_order_relaxed)) {
      return Status(StatusCode::kCancelled, "cancelled");
    }
    return RunFew(dialogue, tokens, on_logits, last_logits, stats);
  }
  if (n_reading_ == kMaxReadings) {
    return Status(StatusCode::kInvalidArgument,
                  std::to_string(kMaxReadings) + " other sessions are reading prompts, each in the yield of another");
  }
  ++n_reading_;
  Status status = RunPrefill(dialogue, tokens, control, on_logits, last_logits, stats);
  --n_reading_;
  return status;
}

Status Forward::BeginStep(Dialogue& dialogue, ForwardStats* stats) {
  double selection_ms = 0;
  LS_RETURN_IF_ERROR(evictor_->BeginStep(dialogue, &selection_ms));
  if (stats != nullptr) stats->attention.selection_ms += selection_ms;
  return Status::Ok();
}

Status Forward::RunFew(Dialogue& dialogue, std::span<const Token> tokens, const LogitsCallback& on_logits,
                       std::vector<float>* last_logits, ForwardStats* stats) {
  Status status = OrOutOfMemory(kStep, [&] { return TryFew(dialogue, tokens, on_logits, last_logits, stats); });
  if (!status.ok()) dialogue.kept.ForgetRows(dialogue.cache.n_tokens());
  return status;
}

Status Forward::TryFew(Dialogue& dialogue, std::span<const Token> tokens, const LogitsCallback& on_logits,
                       std::vector<float>* last_logits, ForwardStats* stats) {
  LS_RETURN_IF_ERROR(BeginStep(dialogue, stats));
  DecodeGraph::Part part{&dialogue, tokens, stats};
  decode_->Run({&part, 1}, static_cast<bool>(on_logits));
  LS_RETURN_IF_ERROR(part.status);
  const auto n = static_cast<int64_t>(tokens.size());
  const size_t n_vocab = part.logits.size() / (on_logits ? tokens.size() : 1);
  last_logits->assign(part.logits.end() - static_cast<int64_t>(n_vocab), part.logits.end());
  const int64_t first_position = dialogue.cache.n_tokens();
  dialogue.cache.CommitTokens(n);
  for (int64_t r = 0; on_logits && r < n; ++r) {
    on_logits(first_position + r, part.logits.subspan(static_cast<size_t>(r) * n_vocab, n_vocab));
  }
  return Status::Ok();
}

void Forward::RunSteps(std::span<Step> steps) {
  LS_CHECK(steps.size() <= kMaxSteps);
  if (!shares_steps_ || steps.size() == 1) {
    for (Step& step : steps) {
      step.status = RunFew(*step.dialogue, {&step.token, 1}, {}, step.logits, step.stats);
    }
    return;
  }
  const Status status = OrOutOfMemory(kStep, [&] { return TryShared(steps); });
  for (Step& step : steps) {
    if (!status.ok()) step.status = status;
    if (!step.status.ok()) step.dialogue->kept.ForgetRows(step.dialogue->cache.n_tokens());
  }
}

Status Forward::TryShared(std::span<Step> steps) {
  std::array<DecodeGraph::Part, kMaxSteps> parts;
  std::array<Step*, kMaxSteps> taking_part;
  size_t n = 0;
  for (Step& step : steps) {
    step.status = BeginStep(*step.dialogue, step.stats);
    if (!step.status.ok()) continue;
    parts[n] = {step.dialogue, {&step.token, 1}, step.stats};
    taking_part[n++] = &step;
  }
  decode_->Run({parts.data(), n});
  // Nothing is committed before all have their logits: what may fail comes first.
  for (size_t i = 0; i < n; ++i) {
    taking_part[i]->status = parts[i].status;
    if (parts[i].status.ok()) taking_part[i]->logits->assign(parts[i].logits.begin(), parts[i].logits.end());
  }
  for (size_t i = 0; i < n; ++i) {
    if (parts[i].status.ok()) parts[i].dialogue->cache.CommitTokens(1);
  }
  return Status::Ok();
}

Status Forward::RunPrefill(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
                           const LogitsCallback& on_logits, std::vector<float>* last_logits, ForwardStats* stats) {
  const int64_t before = dialogue.cache.n_tokens();
  ForwardStats nobodys;
  Status status = OrOutOfMemory("reading a prompt", [&] {
    return TryPrefill(dialogue, tokens, control, on_logits, last_logits, stats != nullptr ? stats : &nobodys);
  });
  if (!status.ok()) dialogue.Truncate(before);
  return status;
}

Status Forward::TryPrefill(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
                           const LogitsCallback& on_logits, std::vector<float>* last_logits, ForwardStats* stats) {
  const auto n = static_cast<int64_t>(tokens.size());
  for (int64_t first = 0; first < n; first += Prefill::kPassRows) {
    const int64_t rows = std::min(Prefill::kPassRows, n - first);
    LS_RETURN_IF_ERROR(PrefillOf(n_reading_ - 1)
                           .Run(dialogue, tokens.subspan(static_cast<size_t>(first), static_cast<size_t>(rows)),
                                control, on_logits, static_cast<double>(first) / static_cast<double>(n),
                                static_cast<double>(rows) / static_cast<double>(n), last_logits, stats));
    dialogue.cache.CommitTokens(rows);
  }
  return EndPrefill(dialogue, n, &stats->attention.selection_ms);
}

Status Forward::EndPrefill(Dialogue& dialogue, int64_t n_rows, double* selection_ms) {
  return n_rows > kDecodeRows ? decode_->sparsity().EndPrefill(dialogue, selection_ms) : Status::Ok();
}

Status Forward::EndPrompt(Dialogue& dialogue, int64_t n_new, ForwardStats* stats) {
  return OrOutOfMemory("choosing what is kept",
                       [&] { return evictor_->EndPrompt(dialogue, n_new, &stats->attention.selection_ms); });
}

Status Forward::FinishAnswer(Dialogue& dialogue, ForwardStats* stats) {
  return OrOutOfMemory("choosing what is kept",
                       [&] { return evictor_->EndAnswer(dialogue, &stats->attention.selection_ms); });
}

Status Forward::BeginAnswer(Dialogue& dialogue, bool measure, ForwardStats* stats) {
  LS_RETURN_IF_ERROR(OrOutOfMemory("choosing keys for an answer", [&] {
    return decode_->sparsity().Begin(dialogue, measure, &stats->attention.selection_ms);
  }));
  stats->decode_keys_read += WorkingSetKeeper::KeysReadToChoose(dialogue);
  return Status::Ok();
}

void Forward::EndAnswer(Dialogue& dialogue) { dialogue.EndAnswer(); }

Result<std::vector<double>> Forward::MeasureDecodeCoverage(Dialogue& dialogue) {
  return decode_->MeasureCoverage(dialogue);
}

}  // namespace loopserve
