// Teacher-forced score of a text or of dialogues: how well a model under a policy predicts it, and how far its
// next-token distributions are from a reference's. A text is cut into windows; each starts from an empty session, with
// the model's begin-of-text where it has one. Of a window all rows of the prefill are scored, or the tokens of answers,
// which are computed one by one as a generated answer is. Thread rule: one thread calls.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/logits_puller.h"
#include "loopserve/engine.h"
#include "loopserve/policy.h"
#include "loopserve/status.h"

namespace loopserve::bench {

/// A prompt and the answer that follows it.
struct ScoredTurn {
  std::vector<Token> prompt;  ///< the whole dialogue up to here, not empty
  std::vector<Token> answer;  ///< empty: the prompt's own tokens are scored
};

/// What is scored from an empty session on: one turn, or those of a dialogue.
struct ScoredWindow {
  std::vector<ScoredTurn> turns;

  int64_t n_tokens() const;  ///< held at its end
};

/// What a window's computation read and lost, where the model says.
struct WindowFigures {
  std::optional<double> prefill_density;
  std::optional<double> coverage_heldout;
  std::optional<double> output_error;
  std::optional<double> output_error_p90;
  std::optional<double> floor_density;
  std::optional<double> floor_error;
  std::optional<double> decode_coverage;
  std::optional<double> decode_coverage_p10;
  std::optional<double> decode_kv_fraction;
};

/// A model that can be asked for the logits of all rows of a window.
class Scorer {
 public:
  virtual ~Scorer() = default;
  virtual int n_vocab() const = 0;
  /// Computes the window from nothing. The callback sees, in order, the logits of every token that is scored: of each
  /// turn its answer's, or all of its prompt's but the first. figures may be null.
  virtual Status Score(const ScoredWindow& window, const LogitsCallback& on_logits, WindowFigures* figures) = 0;
};

std::unique_ptr<Scorer> MakeEngineScorer(std::shared_ptr<Engine> engine, const Policy& policy,
                                         const std::atomic<bool>* cancel);

/// What --against names.
struct AgainstSpec {
  enum class Kind { kPolicy, kLlamaCppExact, kLlamaCppQuantized };
  Kind kind = Kind::kPolicy;
  std::string name;  ///< canonical: "llama.cpp:arithmetic=exact", "dense", ...
  Policy policy;     ///< of kPolicy
};
/// "llama.cpp[:arithmetic=exact|quantized]" or a policy. kInvalidArgument names the key or value it does not know.
Result<AgainstSpec> ParseAgainst(const std::string& spec);

struct LlamaCppScorerOptions {
  std::string model_path;
  int threads = 1;
  int64_t context_tokens = 0;
  int n_vocab = 0;           ///< of the model: bounds the rows whose logits are held at once
  bool exact = true;         ///< the weights dequantised to f32 (OpenDequantized)
  std::string scratch_path;  ///< where the f32 file lies for a while
  const std::atomic<bool>* cancel = nullptr;
};
Result<std::unique_ptr<Scorer>> MakeLlamaCppScorer(const LlamaCppScorerOptions& options);

/// Cuts a text into windows of at most `context` tokens, each beginning with `special` (counted in); the last
/// `answer_tokens` of each are its answer (0: none). What is left at the end is a shorter window, or nothing where it
/// has no token to score. Precondition: context > special.size() + 1 + answer_tokens.
std::vector<ScoredWindow> CutWindows(std::span<const Token> text, std::span<const Token> special, int64_t context,
                                     int64_t answer_tokens = 0);

/// The means over a part of the scored tokens: a range of positions within windows, or a turn's answers.
struct PartScore {
  int64_t first_position = 0;  ///< of a text; in dialogues: the turn, from 1
  int64_t scored_positions = 0;
  double nll = 0;
  std::optional<double> kl;
  std::optional<double> top1_agreement;
};

struct TextScore {
  int64_t tokens = 0;            ///< in all windows, begin-of-text included
  int64_t scored_positions = 0;  ///< tokens whose logits were looked at; every mean is over these
  int64_t windows = 0;
  double nll = 0;  ///< nats per token
  std::optional<double> nll_against;
  std::optional<double> kl;  ///< mean KL(against || policy), nats
  std::optional<double> kl_p99;
  std::optional<double> kl_max;
  std::optional<double> top1_agreement;
  WindowFigures figures;  ///< of each the mean over windows, by their tokens
  bool by_turn = false;   ///< parts are turns of dialogues, not positions of a text
  std::vector<PartScore> parts;
};

/// against may be null. on_progress sees the share done. Errors: kInvalidArgument (no position to score, different
/// vocabularies), kCancelled, and what the models say.
Result<TextScore> ScoreText(const std::vector<ScoredWindow>& windows, Scorer& scorer, Scorer* against,
                            const std::function<void(double)>& on_progress = {});

}  // namespace loopserve::bench
