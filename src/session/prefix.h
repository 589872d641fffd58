// Which part of what a session holds can be kept for a new prompt: pure functions, no state.
#pragma once

#include <cstdint>
#include <span>

#include "loopserve/engine.h"

namespace loopserve {

struct SyncPlan {
  SyncKind kind = SyncKind::kExtend;
  int64_t keep_tokens = 0;  ///< rewind the session to this length ...
  int64_t new_tokens = 0;   ///< ... then compute this many, the rest of the prompt
};

/// `held`: tokens with KV; `prompt`: the dialogue wanted; have_logits: the logits after held.back() are known.
/// At least the prompt's last token is computed unless held == prompt and have_logits. An empty prompt gives
/// {kRebuild, 0, 0}. kind: kExtend when all of `held` is kept (or the held tokens equal the prompt and only the last is
/// computed again), kRebuild when nothing is kept of a non-empty session, kRewind otherwise.
SyncPlan PlanSync(std::span<const Token> held, std::span<const Token> prompt, bool have_logits);

}  // namespace loopserve
