// A request and its reply as the routes see them, without sockets: so routes can be tested by calling them.
// Thread rule: values; a request belongs to the thread that serves it.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace loopserve::server {

struct HttpRequest {
  std::string body;
  std::map<std::string, std::string> path_params;  ///< of patterns such as /v1/sessions/:id
  std::string tenant;  ///< who asks: one tenant for each API key; empty where the server has no keys
  /// A header's value, empty if there is none; names in any case.
  std::function<std::string(const std::string& name)> header = [](const std::string&) { return std::string(); };
  /// Whether the client has gone away.
  std::function<bool()> is_gone = [] { return false; };
};

/// Appends the next bytes of a streamed reply to *out, waiting for them; false when these are the last. Called again
/// and again until then, or until the client is gone; then it is destroyed, which must free what it works on.
using BodyStream = std::function<bool(std::string* out)>;

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  BodyStream stream;  ///< instead of `body`
  std::vector<std::pair<std::string, std::string>> headers;
};

struct ApiError;
using Handler = std::function<HttpReply(const HttpRequest&)>;

struct Route {
  std::string method;  ///< GET, POST or DELETE
  std::string path;    ///< parts that begin with ':' become path_params
  Handler handler;
  bool is_public = false;  ///< served without an API key, and while the model loads
  /// How errors that arise before the handler are written; null: in OpenAI's form.
  HttpReply (*error)(const ApiError&) = nullptr;
};

}  // namespace loopserve::server
