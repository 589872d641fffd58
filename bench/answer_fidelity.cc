#include "bench/answer_fidelity.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "bench/metrics.h"
#include "src/base/check.h"

namespace loopserve::bench {
namespace {

using RowCallback = std::function<Status(std::span<const float>)>;

/// Leads a session through an answer. on_row sees what each of its tokens would have been drawn from, and then what
/// the token after it would be drawn from.
Status ReplayRows(Session& session, const std::vector<Token>& answer, const RunControl& control,
                  const RowCallback& on_row) {
  Status row_status;
  const auto on_logits = [&](int64_t, std::span<const float> row) {
    if (row_status.ok()) row_status = on_row(row);
  };
  LS_RETURN_IF_ERROR(session.Replay(answer, control, on_logits).status());
  LS_RETURN_IF_ERROR(row_status);
  return on_row(session.logits());
}

/// Of a text whose dense rows begin at first_row of the spool.
Result<TextFidelity> CompareText(LogitsSpool& spool, int64_t first_row, const std::vector<Token>& text,
                                 Session& session, const RunControl& control) {
  size_t n_rows = 0;
  double kl = 0, same = 0, nll = 0;
  LS_RETURN_IF_ERROR(ReplayRows(session, text, control, [&](std::span<const float> row) {
    LS_ASSIGN_OR_RETURN(const std::span<const float> dense_row, spool.Row(first_row + static_cast<int64_t>(n_rows)));
    kl += KlDivergence(dense_row, row);
    same += SameTop1(dense_row, row) ? 1 : 0;
    if (n_rows < text.size()) nll += NegativeLogLikelihood(row, text[n_rows]);
    ++n_rows;
    return Status::Ok();
  }));
  TextFidelity fidelity{kl / static_cast<double>(n_rows), same / static_cast<double>(n_rows), {}};
  if (!text.empty()) fidelity.nll = nll / static_cast<double>(text.size());
  return fidelity;
}

}  // namespace

Result<DenseDialogue> DenseDialogue::Create(const std::string& scratch_dir, int n_vocab) {
  LS_ASSIGN_OR_RETURN(LogitsSpool spool, LogitsSpool::Create(scratch_dir, n_vocab));
  return DenseDialogue(std::move(spool));
}

Status DenseDialogue::AddTurn(Session ready, std::vector<Token> answer, std::vector<Token> reference,
                              const RunControl& control) {
  const std::span<const Token> held = ready.tokens();
  Turn turn{.prompt = {held.begin(), held.end()}, .answer = std::move(answer), .reference = std::move(reference)};
  const auto append = [&](std::span<const float> row) { return spool_.Append(row); };
  Session second = ready.Fork();
  turn.first_row = spool_.n_rows();
  LS_RETURN_IF_ERROR(ReplayRows(ready, turn.answer, control, append));
  turn.first_reference_row = spool_.n_rows();
  if (!turn.reference.empty()) LS_RETURN_IF_ERROR(ReplayRows(second, turn.reference, control, append));
  turns_.push_back(std::move(turn));
  return Status::Ok();
}

Result<std::vector<AnswerFidelity>> MeasureFidelity(DenseDialogue& dense, Session empty, std::vector<Session> ready,
                                                    const RunControl& control) {
  LS_CHECK(ready.size() == dense.turns().size());
  Session session = std::move(empty);
  std::vector<AnswerFidelity> fidelities;
  for (size_t t = 0; t < dense.turns().size(); ++t) {
    const DenseDialogue::Turn& turn = dense.turns()[t];
    if (std::ranges::equal(ready[t].tokens(), turn.prompt)) {
      session = std::move(ready[t]);
    } else {
      LS_RETURN_IF_ERROR(session.Sync(turn.prompt, control).status());
    }
    AnswerFidelity& fidelity = fidelities.emplace_back();
    if (!turn.reference.empty()) {
      Session second = session.Fork();
      LS_ASSIGN_OR_RETURN(fidelity.reference,
                          CompareText(dense.spool(), turn.first_reference_row, turn.reference, second, control));
    }
    LS_ASSIGN_OR_RETURN(fidelity.answer, CompareText(dense.spool(), turn.first_row, turn.answer, session, control));
  }
  return fidelities;
}

}  // namespace loopserve::bench
