#include "src/server/api_error.h"

#include "src/base/format.h"

namespace loopserve::server {
namespace {

constexpr int kRetryAfterSeconds = 2;

}  // namespace

ApiError ToApiError(const Status& status) {
  ApiError error;
  error.message = status.message();
  error.type = "invalid_request_error";
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kCorruptData:
      error.http_status = 400;
      error.code = "invalid_value";
      break;
    case StatusCode::kUnsupported:
      error.http_status = 400;
      error.code = "unsupported";
      break;
    case StatusCode::kContextLength:
      error.http_status = 400;
      error.code = "context_length_exceeded";
      break;
    case StatusCode::kNotFound:
      error.http_status = 404;
      error.code = "not_found";
      break;
    case StatusCode::kResourceExhausted:
      error.http_status = 503;
      error.type = "server_error";
      error.code = "out_of_memory";
      error.retry_after_s = kRetryAfterSeconds;
      break;
    case StatusCode::kCancelled:
      error.http_status = 503;
      error.type = "server_error";
      error.code = "cancelled";
      error.retry_after_s = kRetryAfterSeconds;
      break;
    default:
      error.http_status = 500;
      error.type = "server_error";
      error.code = "internal_error";
  }
  return error;
}

ApiError QueueFullError(size_t n_waiting) {
  return {429, "rate_limit_error", "queue_full", std::to_string(n_waiting) + " requests wait already; try again later",
          kRetryAfterSeconds};
}

ApiError NotReadyError(const std::string& why) { return {503, "server_error", "unavailable", why, kRetryAfterSeconds}; }

ApiError UnauthorizedError() {
  return {401, "invalid_request_error", "invalid_api_key",
          "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'"};
}

ApiError TimeoutError(double seconds) {
  return {504, "server_error", "timeout",
          "the request took longer than its timeout of " + FormatFixed(seconds, 1) + " s"};
}

Json ToJson(const ApiError& error) {
  Json inner;
  inner["message"] = error.message;
  inner["type"] = error.type;
  inner["param"] = nullptr;
  inner["code"] = error.code.empty() ? Json(nullptr) : Json(error.code);
  return Json{{"error", std::move(inner)}};
}

HttpReply ErrorReply(const ApiError& error) {
  HttpReply reply;
  reply.status = error.http_status;
  reply.body = ToText(ToJson(error));
  if (error.retry_after_s > 0) reply.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  if (error.http_status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

HttpReply ErrorReply(const Status& status) { return ErrorReply(ToApiError(status)); }

HttpReply JsonReply(const Json& json) {
  HttpReply reply;
  reply.body = ToText(json);
  return reply;
}

}  // namespace loopserve::server
