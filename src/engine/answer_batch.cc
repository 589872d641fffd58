// Steps of several answers in one pass through the model.
#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "src/engine/answer_impl.h"

namespace loopserve {

void SessionImpl::AppendToEach(std::span<Appended> tokens) {
  if (tokens.empty()) return;
  // As even as may be: 17 are 9 and 8.
  const size_t n_passes = (tokens.size() + Forward::kMaxSteps - 1) / Forward::kMaxSteps;
  for (size_t pass = 0; pass < n_passes; ++pass) {
    const size_t begin = tokens.size() * pass / n_passes;
    const std::span<Appended> now = tokens.subspan(begin, tokens.size() * (pass + 1) / n_passes - begin);
    std::array<Forward::Step, Forward::kMaxSteps> steps;
    std::array<std::vector<float>, Forward::kMaxSteps> logits;
    for (size_t i = 0; i < now.size(); ++i) {
      SessionImpl& session = *now[i].session;
      logits[i] = std::move(session.logits_);
      session.logits_.clear();
      steps[i] = {&session.dialogue_, now[i].token, &logits[i], now[i].stats};
    }
    now.front().session->engine_->forward().RunSteps({steps.data(), now.size()});
    for (size_t i = 0; i < now.size(); ++i) {
      now[i].status = steps[i].status;
      if (!now[i].status.ok()) continue;
      now[i].session->tokens_.push_back(now[i].token);
      now[i].session->logits_ = std::move(logits[i]);
    }
  }
}

void AnswerSteps::StepTogether(std::span<Shared> answers) {
  std::vector<SessionImpl::Appended> tokens;
  std::vector<Shared*> sharing;
  for (Shared& answer : answers) {
    if (answer.steps->measure_) {
      answer.status = answer.steps->Step(answer.token);
      continue;
    }
    tokens.push_back({&answer.steps->session_, answer.token, &answer.steps->forward_});
    sharing.push_back(&answer);
  }
  SessionImpl::AppendToEach(tokens);
  for (size_t i = 0; i < sharing.size(); ++i) sharing[i]->status = std::move(tokens[i].status);
}

std::vector<Result<AnswerStep>> Engine::StepAnswers(std::span<Answer* const> answers) const {
  std::vector<AnswerSteps::Shared> steps;
  std::vector<Status> statuses(answers.size());
  std::vector<std::optional<size_t>> step_of(answers.size());
  std::vector<const SessionImpl*> sessions;
  for (size_t i = 0; i < answers.size(); ++i) {
    AnswerImpl& answer = *answers[i]->impl_;
    if (&answer.session().engine() != impl_.get()) {
      statuses[i] = Status(StatusCode::kInvalidArgument, "the answer is another engine's");
    } else if (std::ranges::find(sessions, &answer.session()) != sessions.end()) {
      statuses[i] = Status(StatusCode::kInvalidArgument, "a session can step one answer at a time");
    } else {
      sessions.push_back(&answer.session());
      if (const std::optional<Token> token = answer.PendingToken()) {
        step_of[i] = steps.size();
        steps.push_back({&answer.steps(), *token});
      }
    }
  }
  AnswerSteps::StepTogether(steps);
  std::vector<Result<AnswerStep>> results;
  results.reserve(answers.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    if (step_of[i]) statuses[i] = steps[*step_of[i]].status;
    results.push_back(statuses[i].ok() ? answers[i]->impl_->Advance() : Result<AnswerStep>(statuses[i]));
  }
  return results;
}

}  // namespace loopserve
