// How a prompt is read: in chunks, between which the answers of others go on and shorter prompts are read.
#include <algorithm>

#include "src/server/scheduler_state.h"

namespace loopserve::server {
namespace {

int64_t CommonTokens(std::span<const Token> a, std::span<const Token> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

}  // namespace

Status Scheduler::ReadPrompt(Active& active, const SessionPool::Lease& lease) {
  active.reading_start = active.last_progress = round_end_ = Clock::now();
  const auto n_tokens = static_cast<int64_t>(active.spec().prompt.size());
  active.cached_tokens = CommonTokens(active.dialogue->session.tokens(), active.spec().prompt);
  active.reading.new_tokens = n_tokens - active.cached_tokens;
  for (Active* other : reading_) other->reading.let_before += active.reading.new_tokens;
  RunControl control;
  control.cancel = &active.stop_reading;
  control.measure_quality = active.spec().measure_quality;
  control.on_progress = [&](double share) { active.reading.share_read = share; };
  control.yield = [&] { YieldFromPrompt(active); };
  reading_.push_back(&active);
  Result<SyncStats> stats = active.dialogue->session.Sync(active.spec().prompt, control);
  if (!stats.ok() && stats.status().code() == StatusCode::kResourceExhausted) {
    // Others took memory meanwhile, or a fork's tail was not counted.
    pool_.MakeRoom(BytesFor(active.spec(), 0, active.dialogue) + engine_->kv_block_bytes());
    stats = active.dialogue->session.Sync(active.spec().prompt, control);
  }
  reading_.pop_back();
  LS_RETURN_IF_ERROR(stats.status());
  active.was_read = true;
  if (metrics_ != nullptr) metrics_->CountPrompt(*stats);
  active.channel().Push(PromptRead{*stats, active.dialogue->id, lease.divergence});
  return Status::Ok();
}

bool Scheduler::MayReadNow(const JobSpec& spec) const {
  if (reading_.empty()) return true;
  if (reading_.size() >= kMaxReadings) return false;
  const auto held = pool_.HeldTokens(spec.name_space, spec.name, spec.policy, spec.prompt);
  const int64_t new_tokens =
      static_cast<int64_t>(spec.prompt.size()) - (held != nullptr ? CommonTokens(*held, spec.prompt) : 0);
  return std::ranges::all_of(reading_, [&](const Active* other) {
    // What is worth waiting for: soon this one will go on from what the other has read.
    const bool shares = spec.name_space == other->spec().name_space &&
                        CommonTokens(spec.prompt, other->spec().prompt) >= kMinForkTokens &&
                        spec.policy.ToString() == other->spec().policy.ToString();
    return !shares && GoesBefore(new_tokens, other->reading);
  });
}

void Scheduler::YieldFromPrompt(Active& reading) {
  TellReaders();
  if (reading.finished) return;
  // The prompt gets as much time as the round before took.
  if (Clock::now() - round_end_ >= round_duration_) WriteRound();
  RemoveFinished();
  DropDeadWaiters();
  Admit();
  UpdateMetrics();
}

/// Stops those whose clients are gone or whose time is over, and tells the others how far their prompts are read.
void Scheduler::TellReaders() {
  for (Active* active : reading_) {
    if (IsOver(*active)) {
      active->stop_reading.store(true);
      continue;
    }
    const auto now = Clock::now();
    if (now - active->last_progress < options_.progress_interval) continue;
    active->last_progress = now;
    active->channel().Push(PromptProgress{static_cast<int64_t>(active->spec().prompt.size()), active->cached_tokens,
                                          active->reading.share_read, MillisecondsSince(active->reading_start)});
  }
}

}  // namespace loopserve::server
