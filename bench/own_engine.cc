#include "bench/own_engine.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "bench/metrics.h"
#include "bench/process_memory.h"
#include "loopserve/policy.h"
#include "loopserve/sampling.h"

namespace loopserve::bench {
namespace {

constexpr size_t kWarmUpTokens = 64;

SamplingParams Greedy(int n_tokens) {
  SamplingParams params;
  params.max_tokens = n_tokens;
  params.ignore_end_of_text = true;
  return params;
}

double MaxOverMedian(const std::vector<float>& itl_ms) {
  return *std::ranges::max_element(itl_ms) / std::max(1e-6, Median({itl_ms.begin(), itl_ms.end()}));
}

class OwnEngine : public MeasuredEngine {
 public:
  OwnEngine(std::shared_ptr<Engine> engine, Policy policy)
      : engine_(std::move(engine)), policy_(std::move(policy)), base_(engine_->NewSession(policy_)) {}

  Status WarmUp() {
    Session session = engine_->NewSession(policy_);
    const std::vector<Token> prompt(kWarmUpTokens, 1);
    LS_RETURN_IF_ERROR(session.Sync(prompt).status());
    return session.Generate(Greedy(2)).status();
  }

  Status Prepare(std::span<const Token> context) override {
    ResetPeakRss();
    if (context.empty()) {
      base_ = engine_->NewSession(policy_);
      return Status::Ok();
    }
    return base_.Sync(context).status();
  }

  Result<RunFigures> Run(std::span<const Token> prompt, int gen_tokens) override {
    Session session = base_.Fork();
    LS_ASSIGN_OR_RETURN(const SyncStats sync, session.Sync(prompt));
    LS_ASSIGN_OR_RETURN(const GenerationStats generation, session.Generate(Greedy(gen_tokens)));
    if (generation.output_tokens != gen_tokens) {
      return Status(StatusCode::kInternal, "the answer has " + std::to_string(generation.output_tokens) +
                                               " tokens instead of " + std::to_string(gen_tokens));
    }
    RunFigures figures;
    figures.peak_rss_bytes = PeakRssBytes();  // before a second session measures quality
    figures.ttft_ms = sync.elapsed_ms + generation.first_token_ms;
    if (gen_tokens > 1) figures.tpot_ms = generation.tpot_ms;
    if (gen_tokens > 2) figures.itl_max_over_median = MaxOverMedian(generation.itl_ms);
    figures.linear_ms = sync.linear_ms;
    figures.attention_ms = sync.attention_ms;
    figures.selection_ms = sync.selection_ms;
    figures.prefill_density = sync.prefill_density;
    LS_RETURN_IF_ERROR(MeasureQuality(prompt, gen_tokens, &figures));
    figures.decode_kv_fraction = generation.decode_kv_fraction;
    figures.decode_linear_ms = generation.linear_ms;
    figures.decode_attention_ms = generation.attention_ms;
    figures.decode_selection_ms = generation.selection_ms;
    const std::span<const Token> held = session.tokens();
    figures.output.assign(held.begin() + static_cast<ptrdiff_t>(std::min(prompt.size(), held.size())), held.end());
    if (figures.output.size() + 1 == static_cast<size_t>(gen_tokens)) {
      // A session does not hold the last token of an answer; greedily it is the likeliest one.
      const std::span<const float> logits = session.logits();
      figures.output.push_back(static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    }
    return figures;
  }

 private:
  Status PlayMeasured(std::span<const Token> prompt, int gen_tokens) {
    Session session = base_.Fork();
    RunControl control;
    control.measure_quality = true;
    LS_ASSIGN_OR_RETURN(measured_sync_, session.Sync(prompt, control));
    LS_ASSIGN_OR_RETURN(measured_generation_, session.Generate(Greedy(gen_tokens), {}, control));
    return Status::Ok();
  }

  /// What a sparse policy loses, in a run of its own that is not timed, once for each length.
  Status MeasureQuality(std::span<const Token> prompt, int gen_tokens, RunFigures* figures) {
    if (policy_.is_dense()) return Status::Ok();
    if (measured_tokens_ != prompt.size()) {
      LS_RETURN_IF_ERROR(PlayMeasured(prompt, gen_tokens));
      ResetPeakRss();  // of a session that is gone again
      measured_tokens_ = prompt.size();
    }
    figures->coverage_heldout = measured_sync_.coverage_heldout;
    figures->output_error = measured_sync_.output_error;
    figures->output_error_p90 = measured_sync_.output_error_p90;
    figures->floor_density = measured_sync_.floor_density;
    figures->floor_error = measured_sync_.floor_error;
    figures->decode_coverage = measured_generation_.decode_coverage;
    figures->decode_coverage_p10 = measured_generation_.decode_coverage_p10;
    return Status::Ok();
  }

  std::shared_ptr<Engine> engine_;
  Policy policy_;
  Session base_;  // holds the context; every run is a fork of it
  size_t measured_tokens_ = 0;
  SyncStats measured_sync_;
  GenerationStats measured_generation_;
};

}  // namespace

Result<std::unique_ptr<MeasuredEngine>> MakeOwnEngine(const EngineSpec& spec) {
  LS_ASSIGN_OR_RETURN(Policy policy, Policy::Parse(spec.policy));
  EngineOptions options;
  options.model_path = spec.model_path;
  options.threads = spec.threads;
  options.max_context_tokens = spec.max_tokens;
  if (!spec.kv.empty()) {
    LS_ASSIGN_OR_RETURN(options.kv_precision, ParseKvPrecision(spec.kv));
  }
  LS_ASSIGN_OR_RETURN(options.linear_path, ParseLinearPath(spec.linear_path));
  LS_ASSIGN_OR_RETURN(auto engine, Engine::Open(options));
  auto measured = std::make_unique<OwnEngine>(std::move(engine), std::move(policy));
  LS_RETURN_IF_ERROR(measured->WarmUp());
  return std::unique_ptr<MeasuredEngine>(std::move(measured));
}

}  // namespace loopserve::bench
