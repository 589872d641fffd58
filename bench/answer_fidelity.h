// How near a policy is to dense attention on the same dialogue: the policy is led through the prompts and answers of a
// dense dialogue (teacher forcing), computes each answer token by token as it would compute its own, the dense answer
// and the right one, and its next-token distributions are held against the dense ones. Thread rule: one thread calls,
// as for a Session.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/logits_spool.h"
#include "loopserve/engine.h"
#include "loopserve/status.h"

namespace loopserve::bench {

/// A dialogue as dense attention held it.
class DenseDialogue {
 public:
  struct Turn {
    std::vector<Token> prompt;     ///< the whole dialogue up to the answer
    std::vector<Token> answer;     ///< the tokens of it that the session held afterwards
    std::vector<Token> reference;  ///< the right answer's; may be empty
    /// In the spool: one row for each token of the answer, and one for what follows them; then those of the reference.
    int64_t first_row = 0;
    int64_t first_reference_row = 0;
  };

  /// scratch_dir: where the logits lie meanwhile.
  static Result<DenseDialogue> Create(const std::string& scratch_dir, int n_vocab);

  /// Takes down the next turn. ready: the dense session when it had read the prompt.
  Status AddTurn(Session ready, std::vector<Token> answer, std::vector<Token> reference, const RunControl& control);
  const std::vector<Turn>& turns() const { return turns_; }
  LogitsSpool& spool() { return spool_; }

 private:
  explicit DenseDialogue(LogitsSpool spool) : spool_(std::move(spool)) {}

  LogitsSpool spool_;
  std::vector<Turn> turns_;
};

/// Over a text that dense attention was led through as well.
struct TextFidelity {
  double kl = 0;              ///< mean over its rows of KL(dense || policy), nats
  double top1_agreement = 0;  ///< share of them where both have the same most likely token
  std::optional<double> nll;  ///< mean of -log p over its tokens, nats; empty without tokens
};

/// Of one turn, after the dense history.
struct AnswerFidelity {
  TextFidelity answer;                    ///< of the dense answer
  std::optional<TextFidelity> reference;  ///< of the right answer; empty without one
};

/// One for each turn of `dense`. empty: a new session of the policy. ready: of each turn, a session of the same policy
/// that has read its own history; where it is the dense one, the prompt is not computed again.
Result<std::vector<AnswerFidelity>> MeasureFidelity(DenseDialogue& dense, Session empty, std::vector<Session> ready,
                                                    const RunControl& control);

}  // namespace loopserve::bench
