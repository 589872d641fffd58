// `loopserve serve`: the model behind HTTP, until a signal ends it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <thread>

#include "src/base/format.h"
#include "src/base/machine_limits.h"
#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/model_options.h"
#include "src/cli/sampling_options.h"
#include "src/server/server.h"

namespace loopserve {
namespace {

constexpr int kMaxHttpThreads = 4096, kSpareHttpThreads = 48;
constexpr auto kSignalPoll = std::chrono::milliseconds(50);

struct ServeCommand {
  ModelOptions model;
  server::ServerOptions server;
  std::string api_key_file;
  std::string alias;
  size_t kv_budget_bytes = 0;
  int max_running = 16, max_waiting = 256, max_sessions = 256, http_threads = 0;
  int timeout_s = 0, grace_s = 20;
};

/// Half of the memory: the weights and the page cache need theirs.
size_t DefaultKvBudget() { return UsableMemoryBytes() / 2; }

/// A request keeps its connection's thread until it is answered, also while it waits, and an idle connection keeps one
/// too: room for as many requests as may run and wait, and for those who ask how the server is.
int HttpThreads(const ServeCommand& command) {
  if (command.http_threads > 0) return command.http_threads;
  return std::min(kMaxHttpThreads, command.max_running + command.max_waiting + kSpareHttpThreads);
}

std::string ModelIdOf(const ServeCommand& command) {
  if (!command.alias.empty()) return command.alias;
  const std::string name = std::filesystem::path(command.model.model).filename().string();
  return name.ends_with(".gguf") ? name.substr(0, name.size() - 5) : name;
}

Result<server::ServerOptions> ToServerOptions(const ServeCommand& command) {
  server::ServerOptions options = command.server;
  options.model_id = ModelIdOf(command);
  LS_RETURN_IF_ERROR(options.defaults.sampling.Validate());
  LS_ASSIGN_OR_RETURN(options.defaults.policy, ToPolicy(command.model));
  if (!command.api_key_file.empty()) {
    LS_ASSIGN_OR_RETURN(options.http.api_keys, server::ReadApiKeys(command.api_key_file));
  }
  options.http.threads = static_cast<size_t>(HttpThreads(command));
  options.scheduler.max_running = static_cast<size_t>(command.max_running);
  options.scheduler.max_waiting = static_cast<size_t>(command.max_waiting);
  options.scheduler.pool.max_sessions = static_cast<size_t>(command.max_sessions);
  options.scheduler.pool.kv_budget_bytes = command.kv_budget_bytes > 0 ? command.kv_budget_bytes : DefaultKvBudget();
  options.request_timeout = std::chrono::seconds(command.timeout_s);
  return options;
}

bool IsLoopback(const std::string& host) { return host == "localhost" || host == "::1" || host.starts_with("127."); }

Status RunServe(const ServeCommand& command) {
  LS_ASSIGN_OR_RETURN(const server::ServerOptions options, ToServerOptions(command));
  LS_ASSIGN_OR_RETURN(EngineOptions engine_options, ToEngineOptions(command.model));
  engine_options.kv_budget_bytes = options.scheduler.pool.kv_budget_bytes;
  if (!IsLoopback(options.http.host) && options.http.api_keys.empty()) {
    std::cerr << "loopserve: warning: anybody who reaches " << options.http.host
              << " may use this server; --api-key-file asks for a key\n";
  }
  server::Server server(options);
  LS_RETURN_IF_ERROR(server.Start());
  LS_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine, Engine::Open(engine_options));
  const ModelInfo model = engine->model();
  server.Serve(std::move(engine));
  std::cerr << "loopserve: " << options.model_id << " (" << model.description << ", "
            << FormatCount(model.context_tokens) << " tokens of context, KV budget "
            << FormatBytes(engine_options.kv_budget_bytes) << ") on http://" << options.http.host << ":"
            << server.port() << std::endl;
  while (!InterruptFlag().load()) std::this_thread::sleep_for(kSignalPoll);
  std::cerr << "loopserve: ending; answers have " << command.grace_s << " s, a third signal ends at once" << std::endl;
  server.Stop(std::chrono::seconds(command.grace_s));
  return Status::Ok();
}

void AddServerOptions(CLI::App& sub, ServeCommand* command) {
  const auto add = [&](const char* name, auto* value, const char* help, auto least, auto most) {
    sub.add_option(name, *value, help)->check(CLI::Range(least, most))->capture_default_str()->group("Server");
  };
  sub.add_option("--host", command->server.http.host, "address to listen on")->capture_default_str()->group("Server");
  add("--port", &command->server.http.port, "port; 0: any that is free", 0, 65535);
  sub.add_option("--api-key-file", command->api_key_file, "file of API keys, one a line; without it none is asked for")
      ->check(CLI::ExistingFile)
      ->group("Server");
  sub.add_option("--alias", command->alias, "what clients call the model; else its file's name")->group("Server");
  sub.add_option("--kv-budget", command->kv_budget_bytes,
                 "memory for keys and values, as 8GiB; idle sessions leave memory for it; 0: half of what it may use")
      ->transform(CLI::AsSizeValue(false))
      ->group("Server");
  auto* directory = sub.add_option("--sessions-dir", command->server.store.directory,
                                   "folder of dialogues on disk, of this server alone; else they live in memory only");
  directory->group("Server");
  sub.add_option("--disk-budget", command->server.store.budget_bytes,
                 "room for dialogues on disk, as 50GiB; the least recently used ones are deleted for it; 0: no limit")
      ->transform(CLI::AsSizeValue(false))
      ->needs(directory)
      ->group("Server");
  add("--parallel", &command->max_running, "requests that are worked on at once", 1, 1024);
  add("--queue", &command->max_waiting, "requests that may wait; more are refused with 429", 1, 1'000'000);
  add("--max-sessions", &command->max_sessions, "dialogues in memory", 1, 100'000);
  add("--http-threads", &command->http_threads,
      "connections served at once, waiting requests among them; 0: what --parallel and --queue need, and 48", 0,
      kMaxHttpThreads);
  add("--request-timeout", &command->timeout_s, "longest time of a request in seconds; 0: none", 0, 86'400);
  add("--grace", &command->grace_s, "time for answers to end after SIGTERM, in seconds", 0, 3600);
}

}  // namespace

void RegisterServeCommand(CLI::App& app, CommandContext& context) {
  auto command = std::make_shared<ServeCommand>();
  command->server.defaults.sampling.temperature = 1.0f;  // what OpenAI's clients expect where they say nothing
  CLI::App* sub = app.add_subcommand("serve", "serve a model over HTTP, as OpenAI's API does");
  AddModelOptions(*sub, &command->model);
  AddPolicyOption(*sub, &command->model);
  AddServerOptions(*sub, command.get());
  SamplingParams& sampling = command->server.defaults.sampling;
  AddSamplingOptions(*sub, &sampling);
  CLI::Option* seed = sub->get_option("--seed")->default_str("random");
  sub->footer("Sampling options are the defaults of requests that do not say. Routes and fields: docs/server.md.");
  sub->callback([command, &sampling, seed, &context] {
    if (seed->count() > 0) command->server.defaults.seed = sampling.seed;
    context.action = [command] { return RunServe(*command); };
  });
}

}  // namespace loopserve
