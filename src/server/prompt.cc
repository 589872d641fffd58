#include "src/server/prompt.h"

namespace loopserve::server {

Result<std::vector<Token>> RenderPrompt(const Context& context, const std::vector<ChatMessage>& messages,
                                        bool add_generation_prompt, const JobSpec& spec) {
  const Engine& engine = *context.engine;
  LS_ASSIGN_OR_RETURN(std::vector<Token> plain, engine.RenderChat(messages, add_generation_prompt));
  // An answer that was generated may tokenize differently when it comes back as text.
  const auto held = context.scheduler->pool().HeldTokens(spec.name_space, spec.name, spec.policy, plain);
  if (held == nullptr || held->empty()) return plain;
  return engine.RenderChat(messages, add_generation_prompt, *held);
}

}  // namespace loopserve::server
