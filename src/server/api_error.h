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
  std::string param;      ///< the field of the request that is wrong; empty: null
};

/// The field that a message about a request begins with, as "messages[2].role" in "messages[2].role is missing"; empty
/// where it begins with no field's name. All errors of requests are written this way.
std::string FieldOf(const std::string& message);

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
