#include "src/server/openapi.h"

#include <string>

#include "src/server/openapi_schemas.h"

namespace loopserve::server {
namespace {

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

Json ResponsesOf(const Route& route, const std::string& described, bool generates) {
  const char* error_schema = described == "/v1/messages" ? "MessagesError" : "Error";
  const auto error = [&](const char* what) {
    return Json{{"description", what}, {"content", Content("application/json", error_schema)}};
  };
  Json responses;
  Json good{{"description", "done"},
            {"content", Content(route.path == "/metrics" ? "text/plain" : "application/json",
                                ReplySchemaOf(route.method, described))}};
  if (generates) good["content"]["text/event-stream"] = Json::object();
  responses["200"] = std::move(good);
  responses["400"] = error("the request is wrong, or asks for what is not supported");
  if (!route.is_public) responses["401"] = error("the API key is missing or wrong");
  if (route.path.find(':') != std::string::npos) responses["404"] = error("there is none");
  responses["413"] = error("the body is too large");
  responses["414"] = error("the address is too long");
  responses["415"] = error("the body is compressed");
  if (generates) {
    responses["429"] = error("too many requests wait");
    responses["504"] = error("the request's time was over");
  }
  responses["431"] = error("the headers are too large");
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
  const Json schemas = RequestSchemas();
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
      operation["requestBody"] = {{"required", !described.starts_with("/v1/sessions")},
                                  {"content", Content("application/json", SchemaName(described))}};
    }
    operation["responses"] = ResponsesOf(route, described, generates);
    operation["security"] = route.is_public ? Json::array() : Json::array({{{"key", Json::array()}}});
    paths[path][LowerCase(route.method)] = std::move(operation);
  }
  Json named;
  for (const auto& [name, schema] : schemas.items()) named[name[0] == '/' ? SchemaName(name) : name] = schema;
  named.update(ReplySchemas());
  Json document;
  document["openapi"] = "3.1.0";
  document["info"] = {{"title", "loopserve"}, {"version", "1"}};
  document["paths"] = std::move(paths);
  document["components"] = {{"schemas", std::move(named)},
                            {"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}};
  return document;
}

}  // namespace loopserve::server
