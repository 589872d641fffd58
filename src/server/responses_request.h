// A request for /v1/responses. Thread rule: pure functions.
#pragma once

#include <optional>

#include "src/server/generation_request.h"
#include "src/server/tools.h"

namespace loopserve::server {

struct ResponsesRequest {
  GenerationRequest generation;       ///< with its prompt
  std::optional<ToolCallForm> calls;  ///< where the answer may have tool calls
  Json instructions = nullptr, text = {{"format", {{"type", "text"}}}}, tools = Json::array(), tool_choice = "auto";
  bool parallel_tool_calls = true;
};

/// kInvalidArgument, kUnsupported, kContextLength.
Result<ResponsesRequest> ParseResponses(const Context& context, const HttpRequest& http);

}  // namespace loopserve::server
