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

/// The arguments of a call as one line of JSON; an empty text means none. kInvalidArgument where they are no object.
Result<std::string> ArgumentsText(const std::string& arguments, const std::string& where);

/// body.messages: roles, texts, tool calls and what they brought. kInvalidArgument, kUnsupported.
Result<std::vector<ChatMessage>> ParseMessages(const JsonIn& body);

/// The same in Anthropic's form, whose contents may have blocks of type tool_use and tool_result.
Result<std::vector<ChatMessage>> ParseMessagesWithBlocks(const JsonIn& body);

}  // namespace loopserve::server
