#include "src/server/api_error.h"

#include <algorithm>
#include <string_view>

#include "src/base/format.h"

namespace loopserve::server {
namespace {

constexpr int kRetryAfterSeconds = 2;

/// Fields of requests, without what they contain.
constexpr std::string_view kFields[] = {"add_generation_prompt",
                                        "allowed_token_ids",
                                        "audio",
                                        "background",
                                        "bad_words",
                                        "best_of",
                                        "cache_salt",
                                        "chat_template",
                                        "chat_template_kwargs",
                                        "container",
                                        "content",
                                        "continue_final_message",
                                        "conversation",
                                        "echo",
                                        "frequency_penalty",
                                        "function_call",
                                        "functions",
                                        "grammar",
                                        "guided_choice",
                                        "guided_grammar",
                                        "guided_json",
                                        "guided_regex",
                                        "ignore_eos",
                                        "image_data",
                                        "include",
                                        "input",
                                        "instructions",
                                        "json_schema",
                                        "logit_bias",
                                        "logprobs",
                                        "max_completion_tokens",
                                        "max_output_tokens",
                                        "max_tokens",
                                        "mcp_servers",
                                        "measure_quality",
                                        "messages",
                                        "metadata",
                                        "min_p",
                                        "modalities",
                                        "model",
                                        "n",
                                        "n_predict",
                                        "output_config",
                                        "output_format",
                                        "parallel_tool_calls",
                                        "pinned",
                                        "policy",
                                        "prediction",
                                        "presence_penalty",
                                        "previous_response_id",
                                        "priority",
                                        "prompt",
                                        "prompt_cache_key",
                                        "prompt_embeds",
                                        "prompt_logprobs",
                                        "quality",
                                        "repeat_last_n",
                                        "repeat_penalty",
                                        "repetition_penalty",
                                        "response_format",
                                        "return_progress",
                                        "return_token_strs",
                                        "seed",
                                        "session_id",
                                        "stop",
                                        "stop_sequences",
                                        "stream",
                                        "stream_options",
                                        "structured_outputs",
                                        "suffix",
                                        "system",
                                        "temperature",
                                        "text",
                                        "thinking",
                                        "timeout",
                                        "tokens",
                                        "tool_choice",
                                        "tools",
                                        "top_k",
                                        "top_logprobs",
                                        "top_p",
                                        "truncation",
                                        "use_beam_search",
                                        "web_search_options",
                                        "with_pieces",
                                        "add_special",
                                        "add_special_tokens",
                                        "parse_special"};

}  // namespace

std::string FieldOf(const std::string& message) {
  size_t end = 0, first_end = std::string::npos;
  for (; end < message.size(); ++end) {
    const char c = message[end];
    const bool in_name =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' || c == '-';
    if (!in_name && c != '.' && c != '[' && c != ']') break;
    if (!in_name && first_end == std::string::npos) first_end = end;
  }
  const std::string first = message.substr(0, std::min(first_end, end));
  if (std::ranges::find(kFields, first) == std::end(kFields)) return "";
  while (end > 0 && message[end - 1] == '.') --end;
  return message.substr(0, end);
}

ApiError ToApiError(const Status& status) {
  ApiError error;
  error.message = status.message();
  error.type = "invalid_request_error";
  error.param = FieldOf(error.message);
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
  inner["param"] = error.param.empty() ? Json(nullptr) : Json(error.param);
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
