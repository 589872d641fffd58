// A session forked under another policy: where that is exact, and what the other policy has still to do.
#include <memory>
#include <string>

#include "src/engine/session_impl.h"

namespace loopserve {

SessionImpl::SessionImpl(const SessionImpl& other, const Policy& policy)
    : engine_(other.engine_),
      dialogue_(other.dialogue_.cache.Fork(), policy, other.dialogue_.queries.Newest(NotedQueries(policy))),
      tokens_(other.tokens_),
      logits_(other.logits_),
      read_at_once_(other.read_at_once_) {}

Status SessionImpl::CheckFork(const Policy& policy) const {
  const auto refuse = [&](const std::string& why) {
    return Status(StatusCode::kInvalidArgument, "cannot fork under " + policy.ToString() + ": " + why);
  };
  if (!dialogue_.policy.SharesPrefill(policy)) {
    return refuse("its prefill differs from that of " + dialogue_.policy.ToString());
  }
  if (!dialogue_.policy.reads_everything()) return refuse("the session's own policy does not read everything");
  if (tokens_.size() != read_at_once_) return refuse("the session holds more than one prompt, or an answer");
  if (NotedQueries(policy) > dialogue_.queries.n_positions()) {
    return refuse("the session was not opened for it, and did not note what it needs");
  }
  return Status::Ok();
}

Result<std::unique_ptr<SessionImpl>> SessionImpl::Fork(const Policy& policy) const {
  LS_RETURN_IF_ERROR(CheckFork(policy));
  std::unique_ptr<SessionImpl> fork(new SessionImpl(*this, policy));
  const auto n_tokens = static_cast<int64_t>(tokens_.size());
  ForwardStats stats;
  LS_RETURN_IF_ERROR(engine_->forward().EndPrefill(fork->dialogue_, n_tokens, &stats.attention.selection_ms));
  LS_RETURN_IF_ERROR(engine_->forward().EndPrompt(fork->dialogue_, n_tokens, &stats));
  return fork;
}

Result<Session> Session::Fork(const Policy& policy) const {
  LS_ASSIGN_OR_RETURN(std::unique_ptr<SessionImpl> fork, impl_->Fork(policy));
  return Session(std::move(fork));
}

}  // namespace loopserve
