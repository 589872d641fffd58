#include "bench/text_score.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "bench/metrics.h"
#include "bench/peers/llama_cpp_peer.h"
#include "src/base/check.h"

namespace loopserve::bench {
namespace {

constexpr char kLlamaCpp[] = "llama.cpp";
// The logits of a block of rows are held at once: this bounds them.
constexpr int64_t kLogitsBlockBytes = int64_t{64} << 20;
constexpr int kMaxBlockRows = 256;
constexpr int kMinBlockRows = 32;

constexpr std::optional<double> WindowFigures::*kWindowFigures[] = {
    &WindowFigures::prefill_density,  &WindowFigures::coverage_heldout, &WindowFigures::output_error,
    &WindowFigures::output_error_p90, &WindowFigures::floor_density,    &WindowFigures::floor_error,
};

class EngineScorer : public Scorer {
 public:
  EngineScorer(std::shared_ptr<Engine> engine, Policy policy, const std::atomic<bool>* cancel)
      : engine_(std::move(engine)), policy_(std::move(policy)), cancel_(cancel) {}

  int n_vocab() const override { return engine_->model().n_vocab; }

  Status Score(std::span<const Token> window, const LogitsCallback& on_logits, WindowFigures* figures) override {
    Session session = engine_->NewSession(policy_);
    RunControl control;
    control.cancel = cancel_;
    control.measure_quality = true;
    LS_ASSIGN_OR_RETURN(const SyncStats stats, session.Sync(window, control, on_logits));
    if (figures != nullptr) {
      *figures = {stats.prefill_density,  stats.coverage_heldout, stats.output_error,
                  stats.output_error_p90, stats.floor_density,    stats.floor_error};
    }
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

  Status Score(std::span<const Token> window, const LogitsCallback& on_logits, WindowFigures*) override {
    peer_->Clear();
    return peer_->Sync(window, on_logits);
  }

 private:
  std::unique_ptr<LlamaCppPeer> peer_;
};

/// The mean of a figure over windows, weighted by their tokens.
class WindowMean {
 public:
  void Add(const std::optional<double>& value, size_t tokens) {
    if (!value) return;
    sum_ += *value * static_cast<double>(tokens);
    tokens_ += static_cast<double>(tokens);
  }
  std::optional<double> mean() const { return tokens_ > 0 ? std::optional<double>(sum_ / tokens_) : std::nullopt; }

 private:
  double sum_ = 0;
  double tokens_ = 0;
};

/// Walks both models through the windows and adds up.
class TextScoring {
 public:
  TextScoring(Scorer& scorer, Scorer* against) : scorer_(scorer), against_(against) {}

  Status AddWindow(std::span<const Token> window, const std::function<void(size_t)>& on_row) {
    WindowFigures figures;
    LogitsPuller ours([&](const LogitsCallback& on_logits) { return scorer_.Score(window, on_logits, &figures); });
    std::optional<LogitsPuller> theirs;
    if (against_ != nullptr) {
      theirs.emplace([&](const LogitsCallback& on_logits) { return against_->Score(window, on_logits, nullptr); });
    }
    for (size_t i = 0; i + 1 < window.size(); ++i) {
      LS_ASSIGN_OR_RETURN(const std::span<const float> row, ours.Next());
      if (row.empty()) return Status(StatusCode::kInternal, "a window ended before its last row");
      nll_ += NegativeLogLikelihood(row, window[i + 1]);
      if (theirs) {
        LS_ASSIGN_OR_RETURN(const std::span<const float> reference, theirs->Next());
        if (reference.empty()) return Status(StatusCode::kInternal, "the reference ended before its last row");
        nll_against_ += NegativeLogLikelihood(reference, window[i + 1]);
        kl_.push_back(KlDivergence(reference, row));
        same_top1_ += SameTop1(reference, row) ? 1 : 0;
      }
      ++positions_;
      on_row(i);
    }
    LS_RETURN_IF_ERROR(ours.Finish());
    if (theirs) LS_RETURN_IF_ERROR(theirs->Finish());
    for (size_t i = 0; i < std::size(kWindowFigures); ++i) means_[i].Add(figures.*kWindowFigures[i], window.size());
    tokens_ += static_cast<int64_t>(window.size());
    ++windows_;
    return Status::Ok();
  }

  TextScore Total() const {
    TextScore score;
    const auto n = static_cast<double>(positions_);
    score.tokens = tokens_;
    score.scored_positions = positions_;
    score.windows = windows_;
    score.nll = nll_ / n;
    for (size_t i = 0; i < std::size(kWindowFigures); ++i) score.figures.*kWindowFigures[i] = means_[i].mean();
    if (against_ == nullptr) return score;
    score.nll_against = nll_against_ / n;
    double sum = 0;
    for (const double kl : kl_) sum += kl;
    score.kl = sum / n;
    score.kl_p99 = Percentile(kl_, 0.99);
    score.kl_max = *std::max_element(kl_.begin(), kl_.end());
    score.top1_agreement = static_cast<double>(same_top1_) / n;
    return score;
  }

 private:
  Scorer& scorer_;
  Scorer* against_;
  int64_t tokens_ = 0, positions_ = 0, windows_ = 0, same_top1_ = 0;
  double nll_ = 0, nll_against_ = 0;
  std::vector<double> kl_;
  WindowMean means_[std::size(kWindowFigures)];
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

std::vector<std::vector<Token>> CutWindows(std::span<const Token> text, std::span<const Token> special,
                                           int64_t context) {
  LS_CHECK(context > static_cast<int64_t>(special.size()) + 1);
  const size_t room = static_cast<size_t>(context) - special.size();
  std::vector<std::vector<Token>> windows;
  for (size_t begin = 0; begin < text.size(); begin += room) {
    const auto part = text.subspan(begin, std::min(room, text.size() - begin));
    std::vector<Token> window(special.begin(), special.end());
    window.insert(window.end(), part.begin(), part.end());
    if (window.size() >= 2) windows.push_back(std::move(window));
  }
  return windows;
}

Result<TextScore> ScoreText(const std::vector<std::vector<Token>>& windows, Scorer& scorer, Scorer* against,
                            const std::function<void(double)>& on_progress) {
  if (windows.empty()) return Status(StatusCode::kInvalidArgument, "the text has fewer than two tokens");
  if (against != nullptr && against->n_vocab() != scorer.n_vocab()) {
    return Status(StatusCode::kInvalidArgument, "the vocabularies differ: " + std::to_string(scorer.n_vocab()) +
                                                    " and " + std::to_string(against->n_vocab()) + " tokens");
  }
  size_t total = 0, done = 0;
  for (const auto& window : windows) total += window.size();
  TextScoring scoring(scorer, against);
  for (const auto& window : windows) {
    LS_RETURN_IF_ERROR(scoring.AddWindow(window, [&](size_t row) {
      if (on_progress) on_progress(static_cast<double>(done + row) / static_cast<double>(total));
    }));
    done += window.size();
  }
  return scoring.Total();
}

}  // namespace loopserve::bench
