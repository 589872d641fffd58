// The whole server: HTTP in front, the scheduler and its engine behind.
//
//   Server server(options);
//   server.Start();                  // listens; /health says 503
//   server.Serve(engine);            // answers from now on
//   ...                              // until somebody wants it to end
//   server.Stop(grace);              // answers that are being written may end
//
// Thread rule: one thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "src/server/context.h"
#include "src/server/http_server.h"

namespace loopserve::server {

struct ServerOptions {
  std::string model_id;  ///< what clients call the model
  GenerationDefaults defaults;
  HttpOptions http;
  SchedulerOptions scheduler;  ///< its store is `store`
  StoreOptions store;
  std::chrono::milliseconds ping_interval{5000};
  std::chrono::milliseconds request_timeout{0};  ///< where a request does not say; 0: none
};

class Server {
 public:
  explicit Server(const ServerOptions& options);
  /// As Stop without any grace.
  ~Server();

  /// Takes the folder of sessions, and listens. Errors: as DialogueStore::Open and HttpServer::Start.
  Status Start();
  /// The model is there: what is on disk is looked through, then requests are served.
  void Serve(std::shared_ptr<Engine> engine);
  void Stop(std::chrono::milliseconds grace);
  int port() const { return http_.port(); }
  const Context& context() const { return context_; }

 private:
  const ServerOptions options_;
  Context context_;
  HttpServer http_;
};

}  // namespace loopserve::server
