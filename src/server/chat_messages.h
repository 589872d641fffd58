// The dialogue in a chat request. Thread rule: pure functions.
#pragma once

#include <vector>

#include "loopserve/engine.h"
#include "src/server/json_reader.h"

namespace loopserve::server {

inline constexpr size_t kMaxMessages = 100'000;

/// The text of a content: a string, or a list of parts of the given types ({"type": "text", "text": ...}); null is
/// empty. kUnsupported for pictures, sound and files.
Result<std::string> ContentText(const JsonIn& content, const std::string& where,
                                const std::vector<std::string>& text_types = {"text"});

/// body.messages: roles and texts. kInvalidArgument, kUnsupported.
Result<std::vector<ChatMessage>> ParseMessages(const JsonIn& body);

}  // namespace loopserve::server
