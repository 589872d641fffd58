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
    &WindowFigures::prefill_density,  &WindowFigures::coverage_heldout,    &WindowFigures::output_error,
    &WindowFigures::output_error_p90, &WindowFigures::floor_density,       &WindowFigures::floor_error,
    &WindowFigures::decode_coverage,  &WindowFigures::decode_coverage_p10, &WindowFigures::decode_kv_fraction,
};
// A text's windows are looked at in so many equal parts.
constexpr int64_t kTextParts = 8;

/// Means of the figures of several turns or windows, weighted by their tokens.
class FigureMeans {
 public:
  void Add(const WindowFigures& figures, int64_t tokens) {
    for (size_t i = 0; i < std::size(kWindowFigures); ++i) {
      const std::optional<double>& value = figures.*kWindowFigures[i];
      if (!value) continue;
      sums_[i] += *value * static_cast<double>(tokens);
      tokens_[i] += static_cast<double>(tokens);
    }
  }
  WindowFigures mean() const {
    WindowFigures figures;
    for (size_t i = 0; i < std::size(kWindowFigures); ++i) {
      if (tokens_[i] > 0) figures.*kWindowFigures[i] = sums_[i] / tokens_[i];
    }
    return figures;
  }

 private:
  double sums_[std::size(kWindowFigures)] = {};
  double tokens_[std::size(kWindowFigures)] = {};
};

/// Sums over some of the scored tokens.
struct Sums {
  int64_t first_position = 0;
  int64_t positions = 0;
  double nll = 0, nll_against = 0, kl = 0;
  int64_t same_top1 = 0;

  PartScore Mean(bool has_reference) const {
    const auto n = static_cast<double>(positions);
    PartScore part{first_position, positions, nll / n, {}, {}};
    if (has_reference) part.kl = kl / n;
    if (has_reference) part.top1_agreement = static_cast<double>(same_top1) / n;
    return part;
  }
};

/// A scored token: which it is, and the part that it belongs to.
struct Target {
  Token token;
  size_t part;
};

std::vector<Target> TargetsOf(const ScoredWindow& window, bool by_turn, int64_t longest) {
  std::vector<Target> targets;
  for (size_t t = 0; t < window.turns.size(); ++t) {
    const ScoredTurn& turn = window.turns[t];
    const bool has_answer = !turn.answer.empty();
    const std::vector<Token>& tokens = has_answer ? turn.answer : turn.prompt;
    for (size_t i = has_answer ? 0 : 1; i < tokens.size(); ++i) {
      const size_t position = has_answer ? turn.prompt.size() + i : i;
      targets.push_back({tokens[i], by_turn ? t : position * kTextParts / static_cast<size_t>(longest)});
    }
  }
  return targets;
}

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

/// Walks both models through the windows and adds up.
class TextScoring {
 public:
  TextScoring(Scorer& scorer, Scorer* against, bool by_turn, int64_t longest)
      : scorer_(scorer), against_(against), by_turn_(by_turn), longest_(longest) {}

  Status AddWindow(const ScoredWindow& window, const std::function<void(double)>& on_share) {
    WindowFigures figures;
    LogitsPuller ours([&](const LogitsCallback& on_logits) { return scorer_.Score(window, on_logits, &figures); });
    std::optional<LogitsPuller> theirs;
    if (against_ != nullptr) {
      theirs.emplace([&](const LogitsCallback& on_logits) { return against_->Score(window, on_logits, nullptr); });
    }
    const std::vector<Target> targets = TargetsOf(window, by_turn_, longest_);
    for (size_t i = 0; i < targets.size(); ++i) {
      LS_ASSIGN_OR_RETURN(const std::span<const float> row, ours.Next());
      if (row.empty()) return Status(StatusCode::kInternal, "a window ended before its last row");
      std::span<const float> reference;
      if (theirs) {
        LS_ASSIGN_OR_RETURN(reference, theirs->Next());
        if (reference.empty()) return Status(StatusCode::kInternal, "the reference ended before its last row");
      }
      AddRow(row, reference, targets[i]);
      on_share(static_cast<double>(i + 1) / static_cast<double>(targets.size()));
    }
    LS_RETURN_IF_ERROR(ours.Finish());
    if (theirs) LS_RETURN_IF_ERROR(theirs->Finish());
    figures_.Add(figures, window.n_tokens());
    tokens_ += window.n_tokens();
    ++windows_;
    return Status::Ok();
  }

  TextScore Total() const {
    TextScore score;
    const PartScore all = all_.Mean(against_ != nullptr);
    score.tokens = tokens_;
    score.scored_positions = all_.positions;
    score.windows = windows_;
    score.nll = all.nll;
    score.kl = all.kl;
    score.top1_agreement = all.top1_agreement;
    score.figures = figures_.mean();
    score.by_turn = by_turn_;
    for (const Sums& part : parts_) {
      if (part.positions > 0) score.parts.push_back(part.Mean(against_ != nullptr));
    }
    if (against_ == nullptr) return score;
    score.nll_against = all_.nll_against / static_cast<double>(all_.positions);
    score.kl_p99 = Percentile(kl_, 0.99);
    score.kl_max = *std::max_element(kl_.begin(), kl_.end());
    return score;
  }

 private:
  void AddRow(std::span<const float> row, std::span<const float> reference, const Target& target) {
    while (parts_.size() <= target.part) {
      const auto index = static_cast<int64_t>(parts_.size());
      parts_.emplace_back().first_position = by_turn_ ? index + 1 : index * longest_ / kTextParts;
    }
    const double nll = NegativeLogLikelihood(row, target.token);
    double nll_against = 0, kl = 0;
    bool same = false;
    if (!reference.empty()) {
      nll_against = NegativeLogLikelihood(reference, target.token);
      kl = KlDivergence(reference, row);
      same = SameTop1(reference, row);
      kl_.push_back(kl);
    }
    for (Sums* sums : {&all_, &parts_[target.part]}) {
      ++sums->positions;
      sums->nll += nll;
      sums->nll_against += nll_against;
      sums->kl += kl;
      sums->same_top1 += same ? 1 : 0;
    }
  }

  Scorer& scorer_;
  Scorer* against_;
  bool by_turn_;
  int64_t longest_;  ///< tokens of the longest window
  int64_t tokens_ = 0, windows_ = 0;
  Sums all_;
  std::vector<Sums> parts_;
  std::vector<double> kl_;
  FigureMeans figures_;
};

}  // namespace

int64_t ScoredWindow::n_tokens() const {
  return turns.empty() ? 0 : static_cast<int64_t>(turns.back().prompt.size() + turns.back().answer.size());
}

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

std::vector<ScoredWindow> CutWindows(std::span<const Token> text, std::span<const Token> special, int64_t context,
                                     int64_t answer_tokens) {
  LS_CHECK(context > static_cast<int64_t>(special.size()) + 1 + answer_tokens);
  const size_t room = static_cast<size_t>(context) - special.size();
  const auto n_answer = static_cast<size_t>(answer_tokens);
  std::vector<ScoredWindow> windows;
  for (size_t begin = 0; begin < text.size(); begin += room) {
    const auto part = text.subspan(begin, std::min(room, text.size() - begin));
    ScoredTurn turn;
    turn.prompt.assign(special.begin(), special.end());
    turn.prompt.insert(turn.prompt.end(), part.begin(), part.end());
    if (turn.prompt.size() < 2 + n_answer) continue;
    turn.answer.assign(turn.prompt.end() - answer_tokens, turn.prompt.end());
    turn.prompt.resize(turn.prompt.size() - n_answer);
    windows.push_back({{std::move(turn)}});
  }
  return windows;
}

Result<TextScore> ScoreText(const std::vector<ScoredWindow>& windows, Scorer& scorer, Scorer* against,
                            const std::function<void(double)>& on_progress) {
  if (windows.empty()) return Status(StatusCode::kInvalidArgument, "the text has fewer than two tokens");
  if (against != nullptr && against->n_vocab() != scorer.n_vocab()) {
    return Status(StatusCode::kInvalidArgument, "the vocabularies differ: " + std::to_string(scorer.n_vocab()) +
                                                    " and " + std::to_string(against->n_vocab()) + " tokens");
  }
  int64_t total = 0, done = 0, longest = 1;
  bool by_turn = false;
  for (const ScoredWindow& window : windows) {
    total += window.n_tokens();
    longest = std::max(longest, window.n_tokens());
    by_turn = by_turn || window.turns.size() > 1;
  }
  TextScoring scoring(scorer, against, by_turn, longest);
  for (const ScoredWindow& window : windows) {
    LS_RETURN_IF_ERROR(scoring.AddWindow(window, [&](double share) {
      if (on_progress) {
        on_progress((static_cast<double>(done) + share * static_cast<double>(window.n_tokens())) /
                    static_cast<double>(total));
      }
    }));
    done += window.n_tokens();
  }
  return scoring.Total();
}

}  // namespace loopserve::bench
