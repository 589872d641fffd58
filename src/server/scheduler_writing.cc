// How answers are written: a token of each that runs, all in one pass through the model.
#include <algorithm>
#include <utility>
#include <vector>

#include "src/base/format.h"
#include "src/server/logprobs.h"
#include "src/server/scheduler_state.h"

namespace loopserve::server {
namespace {

/// A step takes a block of KV, and copies that a policy keeps grow by so much of them at once.
constexpr size_t kGrowingPart = 8;

double Seconds(Clock::duration duration) { return ToMilliseconds(duration) / 1000; }

bool LacksMemory(const Result<AnswerStep>& step) { return step.status().code() == StatusCode::kResourceExhausted; }

}  // namespace

Status Scheduler::BeginAnswers(Active& active) {
  RunControl control;
  control.cancel = &active.stop_reading;
  control.measure_quality = active.spec().measure_quality;
  SamplingParams sampling = active.spec().sampling;
  for (int i = 0; i < active.spec().n; ++i, ++sampling.seed) {
    auto writer = std::make_unique<Writer>();
    writer->choice = active.spec().first_choice + i;
    if (i > 0) writer->fork = active.dialogue->session.Fork();
    writer->session = i > 0 ? &*writer->fork : &active.dialogue->session;
    active.writers.push_back(std::move(writer));
  }
  sampling.seed = active.spec().sampling.seed;
  for (const auto& writer : active.writers) {
    Result<Answer> answer = writer->session->BeginAnswer(sampling, control);
    if (answer.status().code() == StatusCode::kResourceExhausted) {
      // What the policy keeps beside the KV found no room.
      pool_.MakeRoom(BytesFor(active.spec(), 0, active.dialogue) + engine_->kv_block_bytes());
      answer = writer->session->BeginAnswer(sampling, control);
    }
    LS_ASSIGN_OR_RETURN(writer->answer, std::move(answer));
    ++sampling.seed;
  }
  return Status::Ok();
}

bool Scheduler::WriteRound() {
  const auto start = Clock::now();
  std::vector<Turn> turns;
  bool any_over = false;
  for (const auto& active : active_) {
    if (active->finished || !active->was_read || active->writers.empty()) continue;
    if (IsOver(*active)) {
      any_over = true;
      continue;
    }
    for (const auto& writer : active->writers) {
      if (!writer->ended) turns.push_back({active.get(), writer.get()});
    }
  }
  const bool any_written = WriteTokens(turns);
  round_end_ = Clock::now();
  round_duration_ = round_end_ - start;
  return turns.empty() || any_over || any_written;
}

/// A token of each; false where none could be written for want of memory.
bool Scheduler::WriteTokens(std::span<const Turn> turns) {
  const auto step = [&](std::span<const Turn> now) {
    std::vector<Answer*> answers;
    for (const Turn& turn : now) answers.push_back(&*turn.writer->answer);
    return engine_->StepAnswers(answers);
  };
  std::vector<Result<AnswerStep>> steps = step(turns);
  std::vector<Turn> lacking;
  for (size_t i = 0; i < turns.size(); ++i) {
    if (LacksMemory(steps[i])) {
      lacking.push_back(turns[i]);
    } else {
      Deliver(turns[i], std::move(steps[i]));
    }
  }
  if (lacking.empty()) return true;
  bool any_written = lacking.size() < turns.size();
  const size_t block_bytes = engine_->kv_block_bytes();
  size_t wanted = 0;
  for (const Turn& turn : lacking) wanted += block_bytes + turn.writer->session->kv_bytes() / kGrowingPart;
  if (!pool_.MakeRoom(wanted) && !pool_.MakeRoom(block_bytes)) return any_written;
  std::erase_if(lacking, [](const Turn& turn) { return turn.active->finished; });
  steps = step(lacking);
  for (size_t i = 0; i < lacking.size(); ++i) {
    if (LacksMemory(steps[i])) continue;  // it waits for others to end
    any_written = true;
    Deliver(lacking[i], std::move(steps[i]));
  }
  return any_written;
}

void Scheduler::Deliver(const Turn& turn, Result<AnswerStep> step) {
  Active& active = *turn.active;
  Writer& writer = *turn.writer;
  if (active.finished) return;  // another of its answers failed
  if (!step.ok()) return Fail(active, ToApiError(step.status()));
  AnswerDelta delta;
  delta.choice = writer.choice;
  delta.token = step->token;
  delta.text = std::move(step->text);
  delta.ended = writer.ended = step->ended;
  if (active.spec().top_logprobs >= 0 && step->token >= 0 && !writer.session->logits().empty()) {
    AddLogprobs(writer.session->logits(), active.spec().top_logprobs, &delta);
  }
  CountToken(active, writer, delta.token);
  if (writer.ended) {
    delta.stats = writer.answer->stats();
    if (metrics_ != nullptr) metrics_->CountAnswer(delta.stats, Seconds(Clock::now() - active.waiting.arrival));
  }
  active.channel().Push(std::move(delta));
  if (!std::ranges::all_of(active.writers, [](const auto& w) { return w->ended; })) return;
  active.is_done = true;
  Finish(active);
}

void Scheduler::CountToken(const Active& active, Writer& writer, Token token) {
  const auto now = Clock::now();
  if (metrics_ != nullptr && token >= 0) {
    if (writer.last_token == Clock::time_point()) {
      metrics_->CountFirstToken(Seconds(now - active.waiting.arrival));
    } else {
      metrics_->CountNextToken(Seconds(now - writer.last_token));
    }
  }
  writer.last_token = now;
}

/// Every answer waits for memory: the youngest request gives its own to the others.
void Scheduler::FailForMemory() {
  for (auto it = active_.rbegin(); it != active_.rend(); ++it) {
    if ((*it)->finished) continue;
    Fail(**it, ToApiError(Status(StatusCode::kResourceExhausted, "the answers that run have filled the KV budget of " +
                                                                     FormatBytes(options_.pool.kv_budget_bytes) +
                                                                     "; this one was given up")));
    return;
  }
}

}  // namespace loopserve::server
