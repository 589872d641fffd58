// The whole server over loopback, with a tiny model: what its tests share. Thread rule: of each test.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "src/server/json_reader.h"
#include "src/server/server.h"
#include "src/server/test_engine.h"

namespace loopserve::server {

struct Message {
  std::string role, content;
};

class ServerTest : public testing::Test {
 protected:
  explicit ServerTest(int context_tokens = 4096) : model_(context_tokens) {}
  static ServerOptions Options() {
    ServerOptions options;
    options.model_id = "tiny";
    options.http.port = 0;
    options.http.max_body_bytes = 1 << 20;
    options.defaults.sampling = TestSampling(8);
    options.ping_interval = std::chrono::milliseconds(50);
    return options;
  }
  void Serve(const ServerOptions& options = Options()) {
    server_ = std::make_unique<Server>(options);
    const Status status = server_->Start();
    ASSERT_TRUE(status.ok()) << status.message();
    server_->Serve(engine_);
  }
  httplib::Client Client() const {
    httplib::Client client("127.0.0.1", server_->port());
    client.set_read_timeout(600);
    return client;
  }

  static JsonIn ChatBody(const std::vector<Message>& messages) {
    JsonIn list = JsonIn::array();
    for (const Message& m : messages) list.push_back({{"role", m.role}, {"content", m.content}});
    return {{"model", "tiny"}, {"messages", list}, {"ignore_eos", true}};
  }
  /// A request's status and JSON.
  std::pair<int, JsonIn> Post(const std::string& path, const std::string& body,
                              const httplib::Headers& headers = {}) const {
    auto client = Client();
    const auto result = client.Post(path, headers, body, "application/json");
    if (!result) return {0, JsonIn()};
    return {result->status, JsonIn::parse(result->body, nullptr, false)};
  }
  std::pair<int, JsonIn> Post(const std::string& path, const JsonIn& body, const httplib::Headers& headers = {}) const {
    return Post(path, body.dump(), headers);
  }
  std::pair<int, JsonIn> Get(const std::string& path, const httplib::Headers& headers = {}) const {
    auto client = Client();
    const auto result = client.Get(path, headers);
    if (!result) return {0, JsonIn()};
    return {result->status, JsonIn::parse(result->body, nullptr, false)};
  }
  static std::string TextOf(const JsonIn& reply) { return reply["choices"][0]["message"]["content"]; }

  /// The data of a stream's events.
  std::vector<std::string> Stream(const std::string& path, const JsonIn& body) const {
    auto client = Client();
    const auto result = client.Post(path, body.dump(), "application/json");
    EXPECT_TRUE(result);
    if (!result) return {};
    EXPECT_EQ(result->status, 200) << result->body;
    EXPECT_THAT(result->get_header_value("Content-Type"), testing::HasSubstr("text/event-stream"));
    std::vector<std::string> events;
    std::istringstream lines(result->body);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("data: ")) events.push_back(line.substr(6));
    }
    return events;
  }
  /// The data of events by their types.
  static std::map<std::string, std::vector<JsonIn>> ByType(const std::vector<std::string>& events) {
    std::map<std::string, std::vector<JsonIn>> by_type;
    for (const std::string& event : events) {
      JsonIn json = JsonIn::parse(event);
      by_type[json["type"]].push_back(json);
    }
    return by_type;
  }
  /// What comes of a stream until `enough` says so of all that came; the client leaves then.
  std::string ReadUntil(const JsonIn& body, const std::function<bool(const std::string&)>& enough) const {
    std::string received;
    auto client = Client();
    httplib::Request request;
    request.method = "POST";
    request.path = "/v1/chat/completions";
    request.body = body.dump();
    request.content_receiver = [&](const char* data, size_t n, size_t, size_t) {
      received.append(data, n);
      return !enough(received);
    };
    client.send(request);
    return received;
  }

  const TestModel model_;
  const std::shared_ptr<Engine> engine_ = model_.Open();
  std::unique_ptr<Server> server_;
};

}  // namespace loopserve::server
