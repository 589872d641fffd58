// Errors in the form that OpenAI's clients know: {"error": {"message", "type", "param", "code"}}.
// Thread rule: values.
#pragma once

#include <optional>
#include <string>

#include "loopserve/status.h"
#include "src/server/http_types.h"
#include "src/server/json_reader.h"

namespace loopserve::server {

struct ApiError {
  int http_status = 500;
  std::string type;  ///< "invalid_request_error", ...
  std::string code;  ///< empty: null
  std::string message;
  int retry_after_s = 0;  ///< 0: no such header
};

/// What a Status means to a client: 400 for what it asked, 404, 503 where memory is short, 500 for bugs.
ApiError ToApiError(const Status& status);
/// 429: too many wait. And 503: loading, or going down.
ApiError QueueFullError(size_t n_waiting);
ApiError NotReadyError(const std::string& why);
ApiError UnauthorizedError();
ApiError TimeoutError(double seconds);

Json ToJson(const ApiError& error);
HttpReply ErrorReply(const ApiError& error);
HttpReply ErrorReply(const Status& status);
HttpReply JsonReply(const Json& json);

}  // namespace loopserve::server
