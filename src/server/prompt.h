// From messages to a prompt's tokens, with those that a held dialogue has where they spell the same text.
// Thread rule: thread-safe.
#pragma once

#include <vector>

#include "src/server/context.h"
#include "src/server/job.h"

namespace loopserve::server {

/// spec: whose name, namespace and policy say which dialogues may be looked at. Errors: as Engine::Render.
Result<std::vector<Token>> RenderPrompt(const Context& context, const ChatInput& input, const JobSpec& spec);

}  // namespace loopserve::server
