// HTTP over cpp-httplib: sockets, limits, API keys; requests become HttpRequest and go to their route.
// Thread rule: Start and Stop from one thread; handlers are called on many.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "loopserve/status.h"
#include "src/server/context.h"
#include "src/server/http_types.h"

namespace loopserve::server {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8080;       ///< 0: any that is free
  size_t threads = 128;  ///< connections that are served at once
  size_t max_waiting_connections = 1024;
  size_t max_body_bytes = size_t{64} << 20;
  int read_timeout_s = 30;  ///< without a byte of a request
  int write_timeout_s = 30;
  int keep_alive_s = 30;              ///< an idle connection
  std::vector<std::string> api_keys;  ///< empty: none is asked for
};

/// One key a line; empty lines and lines that begin with # do not count. kNotFound, kIoError; kInvalidArgument for a
/// file without a key, or a key with spaces or control characters.
Result<std::vector<std::string>> ReadApiKeys(const std::string& path);

/// Who has these keys. Looks at all of them whatever is given, so that time tells nothing.
class ApiKeys {
 public:
  explicit ApiKeys(const std::vector<std::string>& keys);
  bool required() const { return !digests_.empty(); }
  /// The tenant of a key; empty optional for a wrong one.
  std::optional<std::string> TenantOf(const std::string& key) const;

 private:
  std::vector<std::string> digests_;
};

class HttpServer {
 public:
  HttpServer(Context& context, const HttpOptions& options);
  ~HttpServer();

  /// Binds and serves in the background. kInvalidArgument (host or port), kIoError.
  Status Start(std::vector<Route> routes);
  int port() const { return port_; }
  /// Waits for replies that are being made and streams that are being written, then ends all connections. Whoever makes
  /// them must see to it that they end.
  void Stop();

 private:
  struct State;
  Context& context_;
  const HttpOptions options_;
  int port_ = 0;
  std::unique_ptr<State> state_;
};

}  // namespace loopserve::server
