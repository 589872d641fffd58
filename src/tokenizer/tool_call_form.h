// Finds out how a chat template writes tool calls, by letting it render made-up ones. Thread rule: pure functions.
#pragma once

#include <optional>
#include <string>

#include "loopserve/engine.h"
#include "src/tokenizer/chat_template.h"

namespace loopserve {

/// Empty where the template shows no calls, or not each as a JSON object of a name and arguments alone.
std::optional<ToolCallForm> FindToolCallForm(const ChatTemplate& chat_template, const std::string& bos_text,
                                             const std::string& eos_text);

}  // namespace loopserve
