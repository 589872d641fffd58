#include "bench/text_score.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "bench/figure_means.h"
#include "bench/metrics.h"
#include "src/base/check.h"

namespace loopserve::bench {
namespace {

// A text's windows are looked at in so many equal parts.
constexpr int64_t kTextParts = 8;

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
