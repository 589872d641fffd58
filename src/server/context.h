// What the routes work with. Thread rule: set up before the server is ready, then only read; its parts are thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "loopserve/engine.h"
#include "src/server/metrics.h"
#include "src/server/scheduler.h"

namespace loopserve::server {

struct GenerationDefaults {
  Policy policy;
  SamplingParams sampling;       ///< but for the seed
  std::optional<uint64_t> seed;  ///< of requests that have none; else each gets a random one
};

struct Context {
  explicit Context(std::string model_id_in) : model_id(std::move(model_id_in)), metrics(model_id) {}

  const std::string model_id;
  Metrics metrics;
  GenerationDefaults defaults;
  std::chrono::milliseconds ping_interval{5000};  ///< between signs of life on a stream that has nothing to say
  std::chrono::milliseconds default_timeout{0};   ///< of a request; 0: none
  int64_t created_s = 0;                          ///< when the model was loaded, since the epoch
  std::shared_ptr<Engine> engine;                 ///< these three are there once `ready`
  std::unique_ptr<DialogueStore> store;           ///< null where dialogues live in memory only
  std::unique_ptr<Scheduler> scheduler;           ///< uses the store
  std::atomic<bool> ready{false};
  std::atomic<bool> stopping{false};
};

}  // namespace loopserve::server
