// The models that a text is scored by: our engine under a policy, and libllama.
#include <algorithm>
#include <utility>

#include "bench/figure_means.h"
#include "bench/peers/llama_cpp_peer.h"
#include "bench/text_score.h"

namespace loopserve::bench {
namespace {

constexpr char kLlamaCpp[] = "llama.cpp";
// The logits of a block of rows are held at once: this bounds them.
constexpr int64_t kLogitsBlockBytes = int64_t{64} << 20;
constexpr int kMaxBlockRows = 256;
constexpr int kMinBlockRows = 32;

class EngineScorer : public Scorer {
 public:
  EngineScorer(std::shared_ptr<Engine> engine, Policy policy, const std::atomic<bool>* cancel)
      : engine_(std::move(engine)), policy_(std::move(policy)), cancel_(cancel) {}

  int n_vocab() const override { return engine_->model().n_vocab; }

  Status Score(const ScoredWindow& window, const LogitsCallback& on_logits, WindowFigures* figures) override {
    Session session = engine_->NewSession(policy_);
    RunControl control;
    control.cancel = cancel_;
    control.measure_quality = true;
    FigureMeans means;
    for (const ScoredTurn& turn : window.turns) {
      const auto last = static_cast<int64_t>(turn.prompt.size()) - 1;
      const auto on_row = [&](int64_t position, std::span<const float> logits) {
        if (position < last) on_logits(position, logits);
      };
      LS_ASSIGN_OR_RETURN(const SyncStats stats,
                          session.Sync(turn.prompt, control, turn.answer.empty() ? LogitsCallback(on_row) : nullptr));
      WindowFigures of_turn = {stats.prefill_density,  stats.coverage_heldout, stats.output_error,
                               stats.output_error_p90, stats.floor_density,    stats.floor_error};
      if (!turn.answer.empty()) {
        LS_ASSIGN_OR_RETURN(const GenerationStats answer, session.Replay(turn.answer, control, on_logits));
        of_turn.decode_coverage = answer.decode_coverage;
        of_turn.decode_coverage_p10 = answer.decode_coverage_p10;
        of_turn.decode_kv_fraction = answer.decode_kv_fraction;
      }
      means.Add(of_turn, stats.new_tokens);
    }
    if (figures != nullptr) *figures = means.mean();
    return Status::Ok();
  }

 private:
  std::shared_ptr<Engine> engine_;
  Policy policy_;
  const std::atomic<bool>* cancel_;
};

class LlamaCppScorer : public Scorer {
 public:
  explicit LlamaCppScorer(std::unique_ptr<LlamaCppPeer> peer) : peer_(std::move(peer)) {}

  int n_vocab() const override { return peer_->n_vocab(); }

  Status Score(const ScoredWindow& window, const LogitsCallback& on_logits, WindowFigures*) override {
    peer_->Clear();
    for (const ScoredTurn& turn : window.turns) {
      // Rows first to last - 1 predict the tokens after them.
      std::vector<Token> tokens = turn.prompt;
      tokens.insert(tokens.end(), turn.answer.begin(), turn.answer.end());
      const auto first = turn.answer.empty() ? int64_t{0} : static_cast<int64_t>(turn.prompt.size()) - 1;
      const auto last = static_cast<int64_t>(tokens.size()) - 1;
      LS_RETURN_IF_ERROR(peer_->Sync(tokens, [&](int64_t position, std::span<const float> logits) {
        if (position >= first && position < last) on_logits(position, logits);
      }));
    }
    return Status::Ok();
  }

 private:
  std::unique_ptr<LlamaCppPeer> peer_;
};

}  // namespace

std::unique_ptr<Scorer> MakeEngineScorer(std::shared_ptr<Engine> engine, const Policy& policy,
                                         const std::atomic<bool>* cancel) {
  return std::make_unique<EngineScorer>(std::move(engine), policy, cancel);
}

Result<AgainstSpec> ParseAgainst(const std::string& spec) {
  const size_t colon = spec.find(':');
  AgainstSpec against;
  if (spec.substr(0, colon) != kLlamaCpp) {
    LS_ASSIGN_OR_RETURN(against.policy, Policy::Parse(spec));
    against.name = against.policy.ToString();
    return against;
  }
  const std::string setting = colon == std::string::npos ? "arithmetic=exact" : spec.substr(colon + 1);
  if (setting == "arithmetic=exact") {
    against.kind = AgainstSpec::Kind::kLlamaCppExact;
  } else if (setting == "arithmetic=quantized") {
    against.kind = AgainstSpec::Kind::kLlamaCppQuantized;
  } else {
    return Status(StatusCode::kInvalidArgument,
                  "llama.cpp: unknown setting '" + setting + "': use arithmetic=exact or arithmetic=quantized");
  }
  against.name = std::string(kLlamaCpp) + ":" + setting;
  return against;
}

Result<std::unique_ptr<Scorer>> MakeLlamaCppScorer(const LlamaCppScorerOptions& options) {
  LlamaCppOptions peer_options;
  peer_options.model_path = options.model_path;
  peer_options.threads = options.threads;
  peer_options.context_tokens = options.context_tokens;
  peer_options.cancel = options.cancel;
  peer_options.batch_rows = static_cast<int>(std::clamp<int64_t>(
      kLogitsBlockBytes / (int64_t{4} * std::max(1, options.n_vocab)), kMinBlockRows, kMaxBlockRows));
  auto peer = options.exact ? OpenDequantized(peer_options, options.scratch_path) : LlamaCppPeer::Open(peer_options);
  if (!peer.ok()) return peer.status();
  return std::unique_ptr<Scorer>(std::make_unique<LlamaCppScorer>(std::move(*peer)));
}

}  // namespace loopserve::bench
