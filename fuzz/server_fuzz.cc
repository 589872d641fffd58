// Fuzz target for requests' bodies: the first byte says which route gets the rest, over a tiny model that answers. Any
// body must give a reply that is an error or what was asked for; never a crash, a hang or status 500.
//
// With libFuzzer (clang; see gguf_fuzz.cc for the whole of it):
//   ninja -C build/fuzz server_fuzz server_fuzz_regression
//   build/fuzz/server_fuzz_regression --write-corpus corpus
//   ASAN_OPTIONS=detect_container_overflow=0 build/fuzz/server_fuzz -max_len=4096 -timeout=30 corpus
#include "fuzz/server_fuzz.h"

#include <unistd.h>

#include <filesystem>
#include <string>

#include "src/base/check.h"
#include "src/server/routes.h"
#include "src/server/server.h"

namespace loopserve::server {
namespace {

/// A context with a tiny model, and what may be asked of it.
struct World {
  World() {
    context.defaults.sampling.max_tokens = 3;
    context.engine = TinyEngine();
    context.scheduler = std::make_unique<Scheduler>(context.engine, SchedulerOptions{}, &context.metrics);
    context.ready = true;
    for (Route& route : AllRoutes(context)) {
      if (route.method == "POST") routes.push_back(std::move(route));
    }
  }
  Context context{"tiny"};
  std::vector<Route> routes;
};

World& TheWorld() {
  static World world;
  return world;
}

void CheckReply(HttpReply reply) {
  LS_CHECK(reply.status != 500);
  if (reply.stream) {
    std::string all;
    while (reply.stream(&all)) {
    }
    reply.stream = nullptr;
    LS_CHECK(all.find("internal_error") == std::string::npos);
    return;
  }
  if (reply.content_type == "application/json") LS_CHECK(!Json::parse(reply.body, nullptr, false).is_discarded());
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::string message = R"({"role": "user", "content": "hello"})";
  const std::vector<std::string> bodies = {
      R"({"messages": [)" + message +
          R"(, {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
          "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}, {"role": "tool", "tool_call_id": "1", "content": "2"}],
          "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}],
          "tool_choice": "required", "max_tokens": 3, "n": 2, "logprobs": true, "top_logprobs": 2, "stream": true,
          "stop": ["x"], "seed": 1, "temperature": 0.5, "session_id": "s", "policy": "dense"})",
      R"({"messages": [)" + message +
          R"(], "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}})",
      R"({"prompt": ["one", "two"], "n": 2, "max_tokens": 2, "logprobs": 1})",
      R"({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}], "text": {"format": {"type": "json_object"}}})",
      R"({"max_tokens": 3, "system": "s", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]},
          {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
          {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "2"}]}]})",
      R"({"content": "some text", "with_pieces": true})",
      R"({"tokens": [1, 2, 300]})",
      R"({"pinned": false, "session_id": "n"})"};
  std::vector<std::string> seeds;
  for (const std::string& body : bodies) {
    for (size_t choice = 0; choice < TheWorld().routes.size(); ++choice) {
      seeds.push_back(static_cast<char>(choice) + body);
    }
  }
  return seeds;
}

}  // namespace loopserve::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace loopserve;
  using namespace loopserve::server;
  if (size == 0) return 0;
  World& world = TheWorld();
  const std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  HttpRequest request;
  request.body = body;
  request.path_params = {{"id", "s"}};
  CheckReply(world.routes[data[0] % world.routes.size()].handler(request));
  return 0;
}
