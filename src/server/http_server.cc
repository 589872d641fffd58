#include "src/server/http_server.h"

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "src/base/log.h"
#include "src/server/api_error.h"

namespace loopserve::server {
namespace {

using ErrorForm = HttpReply (*)(const ApiError&);

constexpr auto kLookForReplies = std::chrono::milliseconds(10);

std::string CredentialOf(const httplib::Request& request) {
  const std::string bearer = "Bearer ";
  const std::string authorization = request.get_header_value("Authorization");
  if (authorization.starts_with(bearer)) return authorization.substr(bearer.size());
  return request.get_header_value("x-api-key");
}

ApiError ErrorOfStatus(int status) {
  ApiError error{status, "invalid_request_error", "", ""};
  switch (status) {
    case 404:
      return {404, "invalid_request_error", "not_found", "there is no such route"};
    case 405:
      return {405, "invalid_request_error", "method_not_allowed", "the route has no such method"};
    case 413:
      return {413, "invalid_request_error", "body_too_large",
              "the body is too large (of one that is sent as a form, as `curl -d` does, 8 KiB: send application/json)"};
    case 414:
    case 431:
      return {status, "invalid_request_error", "header_too_large", "the address or the headers are too large"};
    case 415:
      return {415, "invalid_request_error", "unsupported_encoding", "bodies must not be compressed"};
    default:
      error.code = "http_error";
      error.message = "the request could not be served (" + std::to_string(status) + ")";
      if (status >= 500) error.type = "server_error";
      return error;
  }
}

/// Counts for as long as it lives.
class InFlight {
 public:
  explicit InFlight(std::atomic<int>& count) : count_(count) { ++count_; }
  ~InFlight() { --count_; }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

 private:
  std::atomic<int>& count_;
};

void Write(HttpReply reply, httplib::Response& response, std::shared_ptr<InFlight> in_flight = nullptr) {
  response.status = reply.status;
  for (const auto& [name, value] : reply.headers) response.set_header(name, value);
  if (!reply.stream) {
    response.set_content(reply.body, reply.content_type);
    return;
  }
  auto stream = std::make_shared<BodyStream>(std::move(reply.stream));
  response.set_chunked_content_provider(
      reply.content_type,
      [stream](size_t, httplib::DataSink& sink) {
        std::string out;
        const bool more = (*stream)(&out);
        if (!out.empty() && !sink.write(out.data(), out.size())) return false;
        if (!more) sink.done();
        return true;
      },
      [stream, in_flight](bool) { *stream = nullptr; });
}

}  // namespace

struct HttpServer::State {
  explicit State(const std::vector<std::string>& api_keys) : keys(api_keys) {}
  ApiKeys keys;
  std::atomic<int> in_flight{0};
  httplib::Server server;
  std::thread thread;
};

HttpServer::HttpServer(Context& context, const HttpOptions& options)
    : context_(context), options_(options), state_(std::make_unique<State>(options.api_keys)) {}

HttpServer::~HttpServer() { Stop(); }

void HttpServer::Stop() {
  if (!state_->thread.joinable()) return;
  // httplib cuts streams off when it stops.
  while (state_->in_flight.load() > 0) std::this_thread::sleep_for(kLookForReplies);
  state_->server.stop();
  state_->thread.join();
}

Status HttpServer::Start(std::vector<Route> routes) {
  httplib::Server& server = state_->server;
  server.new_task_queue = [this] {
    // All from the start: a pool that grows looks at who is idle, which in a burst are those that have just been given
    // a connection, and then leaves connections waiting beside threads that it could have.
    return new httplib::ThreadPool(options_.threads, options_.threads, options_.max_waiting_connections);
  };
  server.set_payload_max_length(options_.max_body_bytes);
  server.set_read_timeout(options_.read_timeout_s);
  server.set_write_timeout(options_.write_timeout_s);
  server.set_keep_alive_timeout(options_.keep_alive_s);
  server.set_keep_alive_max_count(1'000'000);
  server.set_tcp_nodelay(true);
  std::map<std::string, ErrorForm> own_errors;
  for (const Route& route : routes) {
    if (route.error != nullptr) own_errors[route.path] = route.error;
  }
  const auto form_of = [own_errors](const std::string& path) {
    const auto own = own_errors.find(path);
    return own == own_errors.end() ? ErrorForm(ErrorReply) : own->second;
  };
  // Before the body is read: strangers send what they like.
  std::set<std::string> public_paths;
  for (const Route& route : routes) {
    if (route.is_public) public_paths.insert(route.path);
  }
  server.set_pre_request_handler(
      [this, form_of, public_paths](const httplib::Request& request, httplib::Response& response) {
        using Outcome = httplib::Server::HandlerResponse;
        if (!state_->keys.required() || public_paths.contains(request.matched_route)) return Outcome::Unhandled;
        if (state_->keys.TenantOf(CredentialOf(request))) return Outcome::Unhandled;
        Write(form_of(request.matched_route)(UnauthorizedError()), response);
        response.set_header("Connection", "close");  // what follows may be the body
        return Outcome::Handled;
      });
  server.set_error_handler([form_of](const httplib::Request& request, httplib::Response& response) {
    if (response.body.empty()) Write(form_of(request.path)(ErrorOfStatus(response.status)), response);
    return httplib::Server::HandlerResponse::Handled;
  });
  server.set_exception_handler([](const httplib::Request&, httplib::Response& response, std::exception_ptr) {
    Log(LogLevel::kError, "a request ended with an exception");
    Write(ErrorReply(Status(StatusCode::kInternal, "internal error")), response);
  });
  server.set_logger([this](const httplib::Request& request, const httplib::Response& response) {
    context_.metrics.CountHttp(response.status);
    if (LogEnabled(LogLevel::kDebug))
      Log(LogLevel::kDebug, request.method + " " + request.path + " " + std::to_string(response.status));
  });
  for (Route& route : routes) {
    const auto serve = [this, handler = std::move(route.handler), is_public = route.is_public,
                        error = route.error != nullptr ? route.error : ErrorForm(ErrorReply)](
                           const httplib::Request& request, httplib::Response& response) {
      HttpRequest http;
      if (!is_public) {
        const std::optional<std::string> tenant =
            state_->keys.required() ? state_->keys.TenantOf(CredentialOf(request)) : std::string();
        if (!tenant) return Write(error(UnauthorizedError()), response);
        http.tenant = *tenant;
        if (context_.stopping) return Write(error(NotReadyError("the server is going down")), response);
        if (!context_.ready) return Write(error(NotReadyError("the model is being loaded")), response);
      }
      if (!request.get_header_value("Content-Encoding").empty()) {
        return Write(error(ErrorOfStatus(415)), response);
      }
      http.body = request.body;
      http.path_params = {request.path_params.begin(), request.path_params.end()};
      http.header = [&request](const std::string& name) { return request.get_header_value(name); };
      http.is_gone = request.is_connection_closed;
      auto in_flight = std::make_shared<InFlight>(state_->in_flight);
      Write(handler(http), response, std::move(in_flight));
    };
    if (route.method == "GET") server.Get(route.path, serve);
    if (route.method == "POST") server.Post(route.path, serve);
    if (route.method == "DELETE") server.Delete(route.path, serve);
  }
  const bool any_port = options_.port == 0;
  port_ = any_port ? server.bind_to_any_port(options_.host)
                   : (server.bind_to_port(options_.host, options_.port) ? options_.port : -1);
  if (port_ < 0) {
    return Status(StatusCode::kIoError, "cannot listen on " + options_.host + " port " + std::to_string(options_.port) +
                                            ": is it in use, or not an address of this machine?");
  }
  state_->thread = std::thread([&server] { server.listen_after_bind(); });
  server.wait_until_ready();
  return Status::Ok();
}

}  // namespace loopserve::server
