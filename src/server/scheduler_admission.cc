// How a request leaves the queue: its dialogue is found, and room is made.
#include <algorithm>
#include <utility>

#include "src/server/scheduler_state.h"

namespace loopserve::server {
namespace {

/// KV is taken in blocks of so many tokens.
constexpr int64_t kBlockTokens = 256;
/// Room for an answer is made before it begins, for no more tokens than this: most answers are shorter than they may
/// be.
constexpr int64_t kPlannedAnswerTokens = 1024;
/// New requests and those who leave are looked after at least so often.
constexpr auto kShortWait = std::chrono::milliseconds(2);

int64_t PlannedAnswer(const SamplingParams& sampling) {
  return sampling.max_tokens < 0 ? kPlannedAnswerTokens : std::min<int64_t>(kPlannedAnswerTokens, sampling.max_tokens);
}

}  // namespace

void Scheduler::TakeNext() {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  for (auto at = queue_.begin(); at != queue_.end(); ++at) {
    if (!MayReadNow(at->spec)) continue;
    SessionPool::Lease lease = pool_.Acquire(at->spec);
    if (lease.dialogue == nullptr) continue;
    next_ = Candidate{std::move(*at), std::move(lease)};
    queue_.erase(at);
    return;
  }
}

Scheduler::Candidate Scheduler::TakeHeldBack() {
  const std::lock_guard lock(mutex_);
  Candidate candidate = std::move(*next_);
  next_.reset();
  return candidate;
}

void Scheduler::Admit() {
  if (active_.size() >= options_.max_running) return;
  if (!next_) TakeNext();
  if (!next_ || !MayReadNow(next_->waiting.spec)) return;
  if (!next_->has_room && !MakeRoomFor(next_->waiting, *next_->lease.dialogue)) {
    // It stays the first: whoever needs less must not overtake it for ever.
    if (!active_.empty()) return;
    const Candidate candidate = TakeHeldBack();
    candidate.waiting.channel->Push(JobFailed{ToApiError(
        Status(StatusCode::kResourceExhausted, "pinned sessions leave no room for this prompt in the KV budget"))});
    pool_.Release(candidate.lease.dialogue, 0);
    return;
  }
  next_->has_room = true;
  // Its KV may have to be read from disk first. Answers go on meanwhile; where there are none, that is waited for.
  if (!pool_.Prepare(&next_->lease, active_.empty() ? kShortWait : std::chrono::milliseconds(0))) return;
  Candidate candidate = TakeHeldBack();
  Start(std::move(candidate.waiting), candidate.lease);
}

size_t Scheduler::BytesFor(const JobSpec& spec, int64_t answer_tokens, const HeldDialogue* dialogue) const {
  const auto bytes = [&](int64_t tokens) { return engine_->kv_bytes_for(spec.policy, tokens); };
  const auto prompt = static_cast<int64_t>(spec.prompt.size());
  const size_t all = bytes(prompt + answer_tokens);
  // Every further answer has a tail of its own.
  const size_t forks = static_cast<size_t>(spec.n - 1) * bytes(answer_tokens + kBlockTokens);
  size_t held = 0;
  if (dialogue != nullptr) {
    const auto tokens = dialogue->session.tokens();
    const auto common = std::ranges::mismatch(tokens, spec.prompt).in1 - tokens.begin();
    held = bytes(common / kBlockTokens * kBlockTokens);
  }
  return all - std::min(all, held) + forks;
}

/// What running answers may still take.
size_t Scheduler::PlannedBytes() const {
  size_t bytes = 0;
  for (const auto& active : active_) {
    if (active->finished) continue;
    const size_t now = active->dialogue->session.kv_bytes();
    bytes += active->planned_bytes > now ? active->planned_bytes - now : 0;
  }
  return bytes;
}

bool Scheduler::MakeRoomFor(const Waiting& waiting, const HeldDialogue& dialogue) {
  const int64_t limit = engine_->model().context_tokens - static_cast<int64_t>(waiting.spec.prompt.size());
  const int64_t answer = std::clamp<int64_t>(limit, 0, PlannedAnswer(waiting.spec.sampling));
  const size_t planned = PlannedBytes(), to_read = pool_.BytesToRead(dialogue);
  if (pool_.MakeRoom(std::max(BytesFor(waiting.spec, answer, &dialogue), to_read) + planned)) return true;
  // Alone it may try with what there is.
  return active_.empty() && pool_.MakeRoom(std::max(BytesFor(waiting.spec, 0, &dialogue), to_read));
}

void Scheduler::Start(Waiting waiting, const SessionPool::Lease& lease) {
  auto owned = std::make_unique<Active>();
  Active& active = *owned;
  active.waiting = std::move(waiting);
  active.dialogue = lease.dialogue;
  active.planned_bytes = BytesFor(active.spec(), PlannedAnswer(active.spec().sampling), nullptr);
  active_.push_back(std::move(owned));
  UpdateMetrics();
  if (metrics_ != nullptr) metrics_->CountQueueTime(MillisecondsSince(active.waiting.arrival) / 1000);
  Status status = ReadPrompt(active, lease);
  if (status.ok()) status = BeginAnswers(active);
  if (status.ok() || active.finished) return;
  if (!IsOver(active)) Fail(active, ToApiError(status));
}

}  // namespace loopserve::server
