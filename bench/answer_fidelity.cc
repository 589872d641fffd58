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

Result<std::optional<double>> ReferenceNll(Session session, const std::vector<Token>& reference,
                                           const RunControl& control) {
  if (reference.empty()) return std::optional<double>();
  double sum = 0;
  size_t i = 0;
  LS_RETURN_IF_ERROR(ReplayRows(session, reference, control, [&](std::span<const float> row) {
    if (i < reference.size()) sum += NegativeLogLikelihood(row, reference[i++]);
    return Status::Ok();
  }));
  return std::optional(sum / static_cast<double>(reference.size()));
}

Status CompareAnswer(DenseDialogue& dense, const DenseDialogue::Turn& turn, Session& session, const RunControl& control,
                     AnswerFidelity* fidelity) {
  int64_t n_rows = 0, same = 0;
  double kl = 0;
  LS_RETURN_IF_ERROR(ReplayRows(session, turn.answer, control, [&](std::span<const float> row) {
    LS_ASSIGN_OR_RETURN(const std::span<const float> dense_row, dense.spool().Row(turn.first_row + n_rows));
    kl += KlDivergence(dense_row, row);
    same += SameTop1(dense_row, row) ? 1 : 0;
    ++n_rows;
    return Status::Ok();
  }));
  fidelity->kl = kl / static_cast<double>(n_rows);
  fidelity->top1_agreement = static_cast<double>(same) / static_cast<double>(n_rows);
  return Status::Ok();
}

}  // namespace

Result<DenseDialogue> DenseDialogue::Create(const std::string& scratch_dir, int n_vocab) {
  LS_ASSIGN_OR_RETURN(LogitsSpool spool, LogitsSpool::Create(scratch_dir, n_vocab));
  return DenseDialogue(std::move(spool));
}

Status DenseDialogue::AddTurn(Session ready, std::vector<Token> answer, const RunControl& control) {
  const std::span<const Token> held = ready.tokens();
  Turn turn{.prompt = {held.begin(), held.end()}, .answer = std::move(answer), .first_row = spool_.n_rows()};
  LS_RETURN_IF_ERROR(
      ReplayRows(ready, turn.answer, control, [&](std::span<const float> row) { return spool_.Append(row); }));
  turns_.push_back(std::move(turn));
  return Status::Ok();
}

Result<std::vector<AnswerFidelity>> MeasureFidelity(DenseDialogue& dense, Session empty, std::vector<Session> ready,
                                                    const std::vector<std::vector<Token>>& references,
                                                    const RunControl& control) {
  LS_CHECK(ready.size() == dense.turns().size() && references.size() == dense.turns().size());
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
    LS_ASSIGN_OR_RETURN(fidelity.reference_nll, ReferenceNll(session.Fork(), references[t], control));
    LS_RETURN_IF_ERROR(CompareAnswer(dense, turn, session, control, &fidelity));
  }
  return fidelities;
}

}  // namespace loopserve::bench
