#include "src/server/openapi.h"

#include <string>

namespace loopserve::server {
namespace {

/// Bodies of requests, by their route; what is not named here is allowed and ignored.
constexpr char kSchemas[] = R"({
  "Error": {"type": "object", "required": ["error"]},
  "Message": {"type": "object", "required": ["role"], "properties": {
    "role": {"type": "string", "minLength": 1, "maxLength": 64},
    "content": {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": {"type": "object"}}]}}},
  "Generation": {"type": "object", "properties": {
    "model": {"type": "string", "maxLength": 256},
    "temperature": {"type": "number", "minimum": 0, "maximum": 100},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"type": "integer", "minimum": -1, "maximum": 2147483647},
    "min_p": {"type": "number", "minimum": 0, "maximum": 1},
    "repeat_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "seed": {"type": "integer"},
    "stop": {"anyOf": [{"type": "string"}, {"type": "array", "maxItems": 16, "items": {"type": "string"}}]},
    "stream": {"type": "boolean"},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    "n": {"type": "integer", "minimum": 1, "maximum": 16},
    "policy": {"type": "string"}, "quality": {"enum": ["fast", "balanced", "faithful"]},
    "session_id": {"type": "string"}, "prompt_cache_key": {"type": "string"}, "cache_salt": {"type": "string"},
    "priority": {"type": "integer", "minimum": -1000, "maximum": 1000},
    "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 86400},
    "measure_quality": {"type": "boolean"}, "return_progress": {"type": "boolean"}, "ignore_eos": {"type": "boolean"}}},
  "/v1/chat/completions": {"allOf": [{"$ref": "#/components/schemas/Generation"}, {"type": "object",
    "required": ["messages"], "properties": {
      "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}},
      "max_tokens": {"type": "integer", "minimum": 1}, "max_completion_tokens": {"type": "integer", "minimum": 1},
      "logprobs": {"type": "boolean"}, "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20}}}]},
  "/v1/completions": {"allOf": [{"$ref": "#/components/schemas/Generation"}, {"type": "object",
    "required": ["prompt"], "properties": {
      "prompt": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items":
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}, {"type": "array", "items": {"type": "integer"}}]}}]},
      "max_tokens": {"type": "integer", "minimum": 1}, "logprobs": {"type": "integer", "minimum": 0, "maximum": 20}}}]},
  "/v1/responses": {"allOf": [{"$ref": "#/components/schemas/Generation"}, {"type": "object",
    "required": ["input"], "properties": {
      "input": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "object"}}]},
      "instructions": {"type": "string"}, "max_output_tokens": {"type": "integer", "minimum": 1}}}]},
  "/v1/messages": {"allOf": [{"$ref": "#/components/schemas/Generation"}, {"type": "object",
    "required": ["messages", "max_tokens"], "properties": {
      "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}},
      "system": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
      "max_tokens": {"type": "integer", "minimum": 1},
      "stop_sequences": {"type": "array", "maxItems": 16, "items": {"type": "string"}}}}]},
  "/tokenize": {"type": "object", "properties": {"content": {"type": "string"}, "prompt": {"type": "string"},
    "add_special": {"type": "boolean"}, "parse_special": {"type": "boolean"}, "with_pieces": {"type": "boolean"},
    "messages": {"type": "array", "items": {"$ref": "#/components/schemas/Message"}}}},
  "/detokenize": {"type": "object", "required": ["tokens"], "properties": {
    "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}}}},
  "/apply-template": {"type": "object", "required": ["messages"], "properties": {
    "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}}}},
  "/v1/sessions/:id/pin": {"type": "object", "properties": {"pinned": {"type": "boolean"}}},
  "/v1/sessions/:id/fork": {"type": "object", "properties": {"session_id": {"type": "string", "maxLength": 256}}}
})";

/// "/v1/sessions/:id" as OpenAPI writes it, and the names of its parts.
std::string PathOf(const std::string& pattern, Json* parameters) {
  std::string path, name;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != ':') {
      path += pattern[i];
      continue;
    }
    name.clear();
    while (i + 1 < pattern.size() && pattern[i + 1] != '/') name += pattern[++i];
    path += "{" + name + "}";
    parameters->push_back({{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
  }
  return path;
}

Json Content(const std::string& type, const std::string& schema) {
  Json content;
  content[type] = schema.empty() ? Json::object() : Json{{"schema", {{"$ref", "#/components/schemas/" + schema}}}};
  return content;
}

Json ResponsesOf(const Route& route, bool generates) {
  const auto error = [](const char* what) {
    return Json{{"description", what}, {"content", Content("application/json", "Error")}};
  };
  Json responses;
  Json good{{"description", "done"},
            {"content", Content(route.path == "/metrics" ? "text/plain" : "application/json", "")}};
  if (generates) good["content"]["text/event-stream"] = Json::object();
  responses["200"] = std::move(good);
  if (route.method == "POST") {
    responses["400"] = error("the request is wrong, or asks for what is not supported");
    responses["413"] = error("the body is too large");
    responses["415"] = error("the body is compressed");
  }
  if (!route.is_public) responses["401"] = error("the API key is missing or wrong");
  if (route.path.find(':') != std::string::npos) responses["404"] = error("there is none");
  if (generates) {
    responses["429"] = error("too many requests wait");
    responses["504"] = error("the request's time was over");
  }
  responses["503"] = error("the server loads, ends, or is out of memory");
  return responses;
}

std::string LowerCase(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
  return text;
}

/// A schema's name in the document: letters, digits and underscores.
std::string SchemaName(const std::string& path) {
  std::string name = "Body";
  for (const char c : path) name += (c == '/' || c == ':' || c == '-') ? '_' : c;
  return name;
}

}  // namespace

Json OpenApiDocument(const std::vector<Route>& routes) {
  const Json schemas = Json::parse(kSchemas);
  Json paths;
  for (const Route& route : routes) {
    Json parameters = Json::array();
    const std::string path = PathOf(route.path, &parameters);
    // The same under a shorter address.
    const std::string described = route.path == "/chat/completions" ? "/v1/chat/completions" : route.path;
    const bool has_body = schemas.contains(described);
    const bool generates = has_body && schemas[described].contains("allOf");
    Json operation;
    operation["operationId"] = LowerCase(route.method) + SchemaName(route.path).substr(4);
    if (!parameters.empty()) operation["parameters"] = std::move(parameters);
    if (has_body) {
      operation["requestBody"] = {{"required", schemas[described].contains("required") || generates},
                                  {"content", Content("application/json", SchemaName(described))}};
    }
    operation["responses"] = ResponsesOf(route, generates);
    operation["security"] = route.is_public ? Json::array() : Json::array({{{"key", Json::array()}}});
    paths[path][LowerCase(route.method)] = std::move(operation);
  }
  Json named;
  for (const auto& [name, schema] : schemas.items()) named[name[0] == '/' ? SchemaName(name) : name] = schema;
  Json document;
  document["openapi"] = "3.1.0";
  document["info"] = {{"title", "loopserve"}, {"version", "1"}};
  document["paths"] = std::move(paths);
  document["components"] = {{"schemas", std::move(named)},
                            {"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}};
  return document;
}

}  // namespace loopserve::server
