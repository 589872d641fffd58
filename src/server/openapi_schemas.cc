#include "src/server/openapi_schemas.h"

#include <map>

namespace loopserve::server {
namespace {

/// What is not named here is allowed and ignored.
constexpr char kRequestParts[] = R"({
  "Text": {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": {"anyOf": [{"type": "string"},
    {"type": "object", "required": ["type", "text"], "properties": {"type": {"enum": ["text"]}, "text": {"type": "string"}}}]}}]},
  "ToolCall": {"type": "object", "required": ["function"], "properties": {"id": {"type": "string", "maxLength": 256},
    "type": {"enum": ["function"]}, "function": {"type": "object", "required": ["name"], "properties": {
      "name": {"type": "string", "maxLength": 128}, "arguments": {"enum": ["{}", "{\"a\": 1}", ""]}}}}},
  "Message": {"type": "object", "required": ["role", "content"], "properties": {
    "role": {"type": "string", "minLength": 1, "maxLength": 16}, "content": {"$ref": "#/components/schemas/Text"},
    "name": {"type": "string", "maxLength": 256}, "tool_call_id": {"type": "string", "maxLength": 256}}},
  "JsonSchema": {"type": "object", "properties": {"type": {"enum": ["object"]}, "properties": {"type": "object"},
    "required": {"type": "array", "items": {"type": "string"}}}},
  "ToolName": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,128}$"},
  "Function": {"type": "object", "required": ["name"], "properties": {"name": {"$ref": "#/components/schemas/ToolName"},
    "description": {"type": "string"}, "strict": {"type": "boolean"}, "parameters": {"$ref": "#/components/schemas/JsonSchema"}}},
  "ChatTool": {"type": "object", "required": ["type", "function"], "properties": {"type": {"enum": ["function"]},
    "function": {"$ref": "#/components/schemas/Function"}}},
  "ResponsesTool": {"allOf": [{"$ref": "#/components/schemas/Function"}, {"type": "object", "required": ["type"],
    "properties": {"type": {"enum": ["function"]}}}]},
  "MessagesTool": {"type": "object", "required": ["name"], "properties": {"name": {"$ref": "#/components/schemas/ToolName"},
    "description": {"type": "string"}, "input_schema": {"$ref": "#/components/schemas/JsonSchema"}}},
  "Generation": {"type": "object", "properties": {
    "model": {"type": "string", "maxLength": 64},
    "temperature": {"type": "number", "minimum": 0, "maximum": 100},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"type": "integer", "minimum": -1, "maximum": 2147483647},
    "min_p": {"type": "number", "minimum": 0, "maximum": 1},
    "repeat_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
    "repetition_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
    "repeat_last_n": {"type": "integer", "minimum": 0, "maximum": 1048576},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "seed": {"type": "integer", "minimum": -9223372036854775808, "maximum": 9223372036854775807},
    "stop": {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 250},
      {"type": "array", "maxItems": 16, "items": {"type": "string", "minLength": 1, "maxLength": 250}}]},
    "stream": {"type": "boolean"},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    "n": {"type": "integer", "minimum": 1, "maximum": 16},
    "policy": {"type": "string", "description": "see the algorithm's documentation; dense leaves nothing out"},
    "quality": {"enum": ["fast", "balanced", "faithful"]},
    "session_id": {"type": "string"}, "prompt_cache_key": {"type": "string"}, "cache_salt": {"type": "string"},
    "metadata": {"type": "object", "properties": {"session_id": {"type": "string"}}},
    "priority": {"type": "integer", "minimum": -1000, "maximum": 1000},
    "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 86400},
    "measure_quality": {"type": "boolean"}, "return_progress": {"type": "boolean"}, "ignore_eos": {"type": "boolean"}}}
})";

constexpr char kBodies[] = R"({
  "/v1/chat/completions": {"allOf": [{"$ref": "#/components/schemas/Generation"}, {"type": "object",
    "required": ["messages"], "properties": {
      "messages": {"type": "array", "minItems": 1, "items": {"anyOf": [{"$ref": "#/components/schemas/Message"},
        {"type": "object", "required": ["role", "tool_calls"], "properties": {"role": {"enum": ["assistant"]},
          "content": {"$ref": "#/components/schemas/Text"},
          "tool_calls": {"type": "array", "items": {"$ref": "#/components/schemas/ToolCall"}}}}]}},
      "max_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647},
      "max_completion_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647},
      "tools": {"type": "array", "maxItems": 128, "items": {"$ref": "#/components/schemas/ChatTool"}},
      "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object", "required": ["type", "function"],
        "properties": {"type": {"enum": ["function"]}, "function": {"type": "object", "required": ["name"],
          "properties": {"name": {"type": "string"}}}}}]},
      "parallel_tool_calls": {"type": "boolean"},
      "response_format": {"anyOf": [{"type": "object", "required": ["type"], "properties": {"type": {"enum": ["text", "json_object"]}}},
        {"type": "object", "required": ["type", "json_schema"], "properties": {"type": {"enum": ["json_schema"]},
          "json_schema": {"type": "object", "required": ["schema"], "properties": {"name": {"type": "string"},
            "strict": {"type": "boolean"}, "schema": {"$ref": "#/components/schemas/JsonSchema"}}}}}]},
      "add_generation_prompt": {"type": "boolean"},
      "logprobs": {"type": "boolean"}, "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20}}}]},
  "/v1/completions": {"allOf": [{"$ref": "#/components/schemas/Generation"}, {"type": "object",
    "required": ["prompt"], "properties": {
      "prompt": {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "maxItems": 64, "items":
        {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}]}},
        {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}]},
      "max_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647},
      "logprobs": {"type": "integer", "minimum": 0, "maximum": 20}}}]},
  "/v1/responses": {"allOf": [{"$ref": "#/components/schemas/Generation"}, {"type": "object",
    "required": ["input"], "properties": {
      "input": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"anyOf": [
        {"type": "object", "required": ["role", "content"], "properties": {"type": {"enum": ["message"]},
          "role": {"type": "string", "minLength": 1, "maxLength": 16}, "content": {"type": "string"}}},
        {"type": "object", "required": ["type", "name", "arguments"], "properties": {"type": {"enum": ["function_call"]},
          "call_id": {"type": "string", "maxLength": 256}, "name": {"type": "string", "maxLength": 128}, "arguments": {"enum": ["{}"]}}},
        {"type": "object", "required": ["type", "output"], "properties": {"type": {"enum": ["function_call_output"]},
          "call_id": {"type": "string", "maxLength": 256}, "output": {"type": "string"}}}]}}]},
      "instructions": {"type": "string"}, "max_output_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647},
      "tools": {"type": "array", "maxItems": 128, "items": {"$ref": "#/components/schemas/ResponsesTool"}},
      "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object", "required": ["type", "name"],
        "properties": {"type": {"enum": ["function"]}, "name": {"type": "string"}}}]},
      "parallel_tool_calls": {"type": "boolean"},
      "text": {"type": "object", "properties": {"format": {"anyOf": [
        {"type": "object", "required": ["type"], "properties": {"type": {"enum": ["text", "json_object"]}}},
        {"type": "object", "required": ["type", "schema"], "properties": {"type": {"enum": ["json_schema"]}, "name": {"type": "string"},
          "strict": {"type": "boolean"}, "schema": {"$ref": "#/components/schemas/JsonSchema"}}}]}}}}}]},
  "/v1/messages": {"allOf": [{"$ref": "#/components/schemas/Generation"}, {"type": "object",
    "required": ["messages", "max_tokens"], "properties": {
      "messages": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role", "content"], "properties": {
        "role": {"type": "string", "minLength": 1, "maxLength": 16},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": [
          {"type": "object", "required": ["type", "text"], "properties": {"type": {"enum": ["text"]}, "text": {"type": "string"}}}]}}]}}}},
      "system": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object", "required": ["type", "text"],
        "properties": {"type": {"enum": ["text"]}, "text": {"type": "string"}}}}]},
      "max_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647},
      "tools": {"type": "array", "maxItems": 128, "items": {"$ref": "#/components/schemas/MessagesTool"}},
      "tool_choice": {"type": "object", "required": ["type"], "properties": {"type": {"enum": ["auto", "any", "tool", "none"]},
        "name": {"type": "string"}, "disable_parallel_tool_use": {"type": "boolean"}}},
      "stop_sequences": {"type": "array", "maxItems": 16, "items": {"type": "string", "minLength": 1, "maxLength": 250}}}}]},
  "/tokenize": {"anyOf": [
    {"type": "object", "required": ["content"], "properties": {"content": {"type": "string"},
      "add_special": {"type": "boolean"}, "parse_special": {"type": "boolean"}, "with_pieces": {"type": "boolean"}}},
    {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"},
      "add_special_tokens": {"type": "boolean"}, "return_token_strs": {"type": "boolean"}}},
    {"type": "object", "required": ["messages"], "properties": {"return_token_strs": {"type": "boolean"},
      "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}}}}]},
  "/detokenize": {"type": "object", "required": ["tokens"], "properties": {
    "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}}}},
  "/apply-template": {"type": "object", "required": ["messages"], "properties": {"add_generation_prompt": {"type": "boolean"},
    "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}}}},
  "/v1/sessions/:id/pin": {"type": "object", "properties": {"pinned": {"type": "boolean"}}},
  "/v1/sessions/:id/fork": {"type": "object", "properties": {"session_id": {"type": "string", "maxLength": 64}}}
})";

constexpr char kReplies[] = R"({
  "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object",
    "required": ["message", "type", "param", "code"], "properties": {"message": {"type": "string"}, "type": {"type": "string"},
      "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}}},
  "MessagesError": {"type": "object", "required": ["type", "error"], "properties": {"type": {"const": "error"},
    "error": {"type": "object", "required": ["type", "message"], "properties": {"type": {"type": "string"}, "message": {"type": "string"}}}}},
  "Usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"], "properties": {
    "prompt_tokens": {"type": "integer"}, "completion_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"},
    "prompt_tokens_details": {"type": "object", "properties": {"cached_tokens": {"type": "integer"}}}}},
  "Held": {"type": "object", "properties": {"session_id": {"type": "string"}, "cached_tokens": {"type": "integer"},
    "new_tokens": {"type": "integer"}, "diverged_at": {"type": ["integer", "null"]}, "divergence": {"type": ["string", "null"]}}},
  "ChatCompletion": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"], "properties": {
    "id": {"type": "string"}, "object": {"const": "chat.completion"}, "created": {"type": "integer"}, "model": {"type": "string"},
    "choices": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["index", "message", "logprobs", "finish_reason"],
      "properties": {"index": {"type": "integer"}, "finish_reason": {"enum": ["stop", "length", "tool_calls"]},
        "logprobs": {"type": ["object", "null"]},
        "message": {"type": "object", "required": ["role", "content"], "properties": {"role": {"const": "assistant"},
          "content": {"type": ["string", "null"]}, "tool_calls": {"type": "array", "items": {"type": "object",
            "required": ["id", "type", "function"]}}}}}}},
    "usage": {"$ref": "#/components/schemas/Usage"}, "timings": {"type": "object"}, "loopserve": {"$ref": "#/components/schemas/Held"}}},
  "Completion": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"], "properties": {
    "object": {"const": "text_completion"}, "choices": {"type": "array", "minItems": 1, "items": {"type": "object",
      "required": ["index", "text", "logprobs", "finish_reason"], "properties": {"text": {"type": "string"},
        "finish_reason": {"enum": ["stop", "length"]}}}}, "usage": {"$ref": "#/components/schemas/Usage"}}},
  "Response": {"type": "object", "required": ["id", "object", "created_at", "status", "model", "output", "usage"], "properties": {
    "object": {"const": "response"}, "status": {"enum": ["completed", "incomplete"]}, "output": {"type": "array", "minItems": 1,
      "items": {"type": "object", "required": ["id", "type", "status"], "properties": {"type": {"enum": ["message", "function_call"]}}}},
    "usage": {"type": "object", "required": ["input_tokens", "output_tokens", "total_tokens"]}}},
  "AnthropicMessage": {"type": "object", "required": ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"],
    "properties": {"type": {"const": "message"}, "role": {"const": "assistant"},
      "content": {"type": "array", "items": {"type": "object", "required": ["type"], "properties": {"type": {"enum": ["text", "tool_use"]}}}},
      "stop_reason": {"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use"]}, "stop_sequence": {"type": ["string", "null"]}}},
  "Tokens": {"type": "object", "required": ["tokens"], "properties": {"count": {"type": "integer"}, "max_model_len": {"type": "integer"},
    "tokens": {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "object", "required": ["id", "piece"]}]}},
    "token_strs": {"type": ["array", "null"], "items": {"type": "string"}}}},
  "Detokenized": {"type": "object", "required": ["content", "prompt"], "properties": {"content": {"type": "string"}, "prompt": {"type": "string"}}},
  "Prompt": {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
  "Session": {"type": "object", "required": ["id", "object", "name", "policy", "tokens", "turns", "kv_bytes", "busy", "pinned", "where", "saved", "disk_bytes"], "properties": {
    "where": {"enum": ["memory", "disk", "both"]}, "saved": {"type": "boolean"}, "disk_bytes": {"type": "integer"},
    "id": {"type": "string"}, "object": {"const": "session"}, "name": {"type": ["string", "null"]}, "policy": {"type": "string"},
    "tokens": {"type": "integer"}, "turns": {"type": "integer"}, "kv_bytes": {"type": "integer"}, "exclusive_kv_bytes": {"type": "integer"},
    "created": {"type": "integer"}, "last_used": {"type": "integer"}, "busy": {"type": "boolean"}, "pinned": {"type": "boolean"}}},
  "SessionList": {"type": "object", "required": ["object", "data"], "properties": {"object": {"const": "list"},
    "data": {"type": "array", "items": {"$ref": "#/components/schemas/Session"}}}},
  "DeletedSession": {"type": "object", "required": ["id", "object", "deleted"], "properties": {"deleted": {"const": true}}},
  "Model": {"type": "object", "required": ["id", "object", "created", "owned_by"], "properties": {"object": {"const": "model"},
    "max_model_len": {"type": "integer"}, "meta": {"type": "object"}}},
  "ModelList": {"type": "object", "required": ["object", "data"], "properties": {"object": {"const": "list"},
    "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}},
  "Health": {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}},
  "Props": {"type": "object", "required": ["default_generation_settings", "model_alias"]},
  "Document": {"type": "object", "required": ["openapi", "info", "paths"]}
})";

}  // namespace

Json RequestSchemas() {
  Json schemas = Json::parse(kRequestParts);
  schemas.update(Json::parse(kBodies));
  return schemas;
}

Json ReplySchemas() { return Json::parse(kReplies); }

std::string ReplySchemaOf(const std::string& method, const std::string& path) {
  static const std::map<std::string, std::string> names = {{"POST /v1/chat/completions", "ChatCompletion"},
                                                           {"POST /v1/completions", "Completion"},
                                                           {"POST /v1/responses", "Response"},
                                                           {"POST /v1/messages", "AnthropicMessage"},
                                                           {"POST /tokenize", "Tokens"},
                                                           {"POST /detokenize", "Detokenized"},
                                                           {"POST /apply-template", "Prompt"},
                                                           {"GET /v1/sessions", "SessionList"},
                                                           {"GET /v1/sessions/:id", "Session"},
                                                           {"DELETE /v1/sessions/:id", "DeletedSession"},
                                                           {"POST /v1/sessions/:id/pin", "Session"},
                                                           {"POST /v1/sessions/:id/save", "Session"},
                                                           {"POST /v1/sessions/:id/fork", "Session"},
                                                           {"GET /v1/models", "ModelList"},
                                                           {"GET /v1/models/:id", "Model"},
                                                           {"GET /health", "Health"},
                                                           {"GET /props", "Props"},
                                                           {"GET /openapi.json", "Document"}};
  const auto found = names.find(method + " " + path);
  return found == names.end() ? "" : found->second;
}

}  // namespace loopserve::server
