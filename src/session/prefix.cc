#include "src/session/prefix.h"

#include <algorithm>

namespace loopserve {

SyncPlan PlanSync(std::span<const Token> held, std::span<const Token> prompt, bool have_logits) {
  if (prompt.empty()) return {SyncKind::kRebuild, 0, 0};
  const auto n_held = static_cast<int64_t>(held.size());
  const auto n_prompt = static_cast<int64_t>(prompt.size());
  const int64_t common = std::ranges::mismatch(held, prompt).in1 - held.begin();

  SyncPlan plan;
  plan.keep_tokens = common;
  // Somebody wants the last token's logits. They are known only of the last held token.
  if (common == n_prompt && !(n_held == n_prompt && have_logits)) plan.keep_tokens = n_prompt - 1;
  plan.new_tokens = n_prompt - plan.keep_tokens;
  if (common == n_held) {
    plan.kind = SyncKind::kExtend;
  } else {
    plan.kind = plan.keep_tokens == 0 ? SyncKind::kRebuild : SyncKind::kRewind;
  }
  return plan;
}

}  // namespace loopserve
