#include "src/server/server.h"

#include "src/server/generation.h"
#include "src/server/routes.h"

namespace loopserve::server {

Server::Server(const ServerOptions& options)
    : options_(options), context_(options.model_id), http_(context_, options.http) {
  context_.defaults = options.defaults;
  context_.ping_interval = options.ping_interval;
  context_.default_timeout = options.request_timeout;
}

Server::~Server() { Stop(std::chrono::milliseconds(0)); }

Status Server::Start() {
  if (!options_.store.directory.empty()) {
    LS_ASSIGN_OR_RETURN(context_.store, DialogueStore::Open(options_.store, &context_.metrics));
  }
  return http_.Start(AllRoutes(context_));
}

void Server::Serve(std::shared_ptr<Engine> engine) {
  context_.engine = std::move(engine);
  if (context_.store != nullptr) context_.store->ReadIndex(context_.engine);
  SchedulerOptions scheduler = options_.scheduler;
  scheduler.pool.store = context_.store.get();
  context_.scheduler = std::make_unique<Scheduler>(context_.engine, scheduler, &context_.metrics);
  context_.created_s = UnixSeconds();
  context_.ready = true;
}

void Server::Stop(std::chrono::milliseconds grace) {
  context_.stopping = true;
  if (context_.scheduler != nullptr) context_.scheduler->Stop(grace);
  // Replies end because their answers do, at the latest when the grace is over.
  http_.Stop();
}

}  // namespace loopserve::server
