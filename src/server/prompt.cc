#include "src/server/prompt.h"

namespace loopserve::server {

Result<std::vector<Token>> RenderPrompt(const Context& context, const ChatInput& input, const JobSpec& spec) {
  LS_ASSIGN_OR_RETURN(const RenderedPrompt rendered, context.engine->Render(input));
  // An answer that was generated may tokenize differently when it comes back as text.
  const auto held = context.scheduler->pool().HeldTokens(spec.name_space, spec.name, spec.policy, rendered.tokens());
  return held == nullptr ? rendered.With({}) : rendered.With(*held);
}

}  // namespace loopserve::server
