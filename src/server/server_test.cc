// The whole server over loopback, with a tiny model.
#include "src/server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/socket.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "src/server/json_reader.h"
#include "src/server/test_engine.h"

namespace loopserve::server {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Message {
  std::string role, content;
};

class ServerTest : public testing::Test {
 protected:
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
    EXPECT_THAT(result->get_header_value("Content-Type"), HasSubstr("text/event-stream"));
    std::vector<std::string> events;
    std::istringstream lines(result->body);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("data: ")) events.push_back(line.substr(6));
    }
    return events;
  }

  const TestModel model_;
  const std::shared_ptr<Engine> engine_ = model_.Open();
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, SaysWhetherItIsReady) {
  server_ = std::make_unique<Server>(Options());
  ASSERT_TRUE(server_->Start().ok());
  EXPECT_EQ(Get("/health").first, 503);
  EXPECT_EQ(Get("/v1/models").first, 503);
  server_->Serve(engine_);
  EXPECT_EQ(Get("/health").first, 200);
  const auto [status, models] = Get("/v1/models");
  EXPECT_EQ(status, 200);
  EXPECT_EQ(models["data"][0]["id"], "tiny");
  EXPECT_EQ(models["data"][0]["max_model_len"], 4096);
  EXPECT_EQ(Get("/v1/models/tiny").first, 200);
  EXPECT_EQ(Get("/v1/models/other").first, 404);
  EXPECT_EQ(Get("/v1/embeddings").first, 404);
  EXPECT_EQ(Get("/props").second["default_generation_settings"]["n_ctx"], 4096);
}

TEST_F(ServerTest, ChatWithAndWithoutAStream) {
  Serve();
  JsonIn body = ChatBody({{"user", TestWords(60, 1)}});
  body["logprobs"] = true;
  body["top_logprobs"] = 3;
  const auto [status, reply] = Post("/v1/chat/completions", body);
  ASSERT_EQ(status, 200) << reply;
  const std::string text = TextOf(reply);
  EXPECT_FALSE(text.empty());
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(reply["usage"]["completion_tokens"], 8);
  EXPECT_EQ(reply["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  EXPECT_EQ(reply["loopserve"]["divergence"], "not_held");
  EXPECT_EQ(reply["timings"]["predicted_n"], 8);
  EXPECT_EQ(reply["timings"]["prompt_density"], 1);
  const JsonIn& logprobs = reply["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(logprobs.size(), 8u);
  EXPECT_EQ(logprobs[0]["top_logprobs"].size(), 3u);
  // Greedy: what was drawn is the most likely.
  EXPECT_EQ(logprobs[0]["logprob"], logprobs[0]["top_logprobs"][0]["logprob"]);
  EXPECT_LE(logprobs[0]["logprob"].get<double>(), 0.0);

  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const std::vector<std::string> events = Stream("/v1/chat/completions", body);
  ASSERT_GE(events.size(), 4u);
  EXPECT_EQ(events.back(), "[DONE]");
  std::string streamed;
  size_t n_logprobs = 0;
  std::string finish;
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    const JsonIn choice = JsonIn::parse(events[i])["choices"][0];
    if (i == 0) {
      EXPECT_EQ(choice["delta"]["role"], "assistant");
    }
    streamed += choice["delta"].value("content", "");
    if (!choice["logprobs"].is_null()) n_logprobs += choice["logprobs"]["content"].size();
    if (!choice["finish_reason"].is_null()) finish = choice["finish_reason"];
  }
  EXPECT_EQ(streamed, text);
  EXPECT_EQ(n_logprobs, 8u);
  EXPECT_EQ(finish, "length");
  const JsonIn usage = JsonIn::parse(events[events.size() - 2]);
  EXPECT_EQ(usage["choices"].size(), 0u);
  EXPECT_EQ(usage["usage"]["completion_tokens"], 8);
  EXPECT_GT(usage["usage"]["prompt_tokens_details"]["cached_tokens"], 50);
}

TEST_F(ServerTest, Completions) {
  Serve();
  const auto [status, reply] = Post("/v1/completions", {{"prompt", JsonIn::array({"one text", "and another"})},
                                                        {"n", 2},
                                                        {"max_tokens", 5},
                                                        {"ignore_eos", true},
                                                        {"logprobs", 2},
                                                        {"temperature", 1},
                                                        {"seed", 3}});
  ASSERT_EQ(status, 200) << reply;
  ASSERT_EQ(reply["choices"].size(), 4u);
  EXPECT_EQ(reply["usage"]["completion_tokens"], 20);
  EXPECT_EQ(reply["choices"][3]["logprobs"]["tokens"].size(), 5u);
  const auto [again_status, again] =
      Post("/v1/completions",
           {{"prompt", "one text"}, {"max_tokens", 5}, {"ignore_eos", true}, {"temperature", 1}, {"seed", 3}});
  EXPECT_EQ(again["choices"][0]["text"], reply["choices"][0]["text"]);
  const auto tokens = Post("/tokenize", {{"prompt", "one text"}}).second["tokens"];
  const auto [by_tokens_status, by_tokens] =
      Post("/v1/completions",
           {{"prompt", tokens}, {"max_tokens", 5}, {"ignore_eos", true}, {"temperature", 1}, {"seed", 3}});
  EXPECT_EQ(by_tokens["choices"][0]["text"], reply["choices"][0]["text"]);
  JsonIn stream = {{"prompt", "one text"}, {"max_tokens", 5}, {"ignore_eos", true},
                   {"temperature", 1},     {"seed", 3},       {"stream", true}};
  std::string streamed;
  for (const std::string& event : Stream("/v1/completions", stream)) {
    if (event != "[DONE]") streamed += JsonIn::parse(event)["choices"][0]["text"];
  }
  EXPECT_EQ(streamed, reply["choices"][0]["text"]);
}

/// The "data:" of events, as JSON, by the type that each has.
std::map<std::string, std::vector<JsonIn>> ByType(const std::vector<std::string>& events) {
  std::map<std::string, std::vector<JsonIn>> by_type;
  for (const std::string& event : events) {
    JsonIn json = JsonIn::parse(event);
    by_type[json["type"]].push_back(json);
  }
  return by_type;
}

TEST_F(ServerTest, MessagesInAnthropicsForm) {
  Serve();
  JsonIn body = ChatBody({{"user", TestWords(60, 1)}});
  body["system"] = JsonIn::array({{{"type", "text"}, {"text", "Be brief."}}});
  EXPECT_EQ(Post("/v1/messages", body).second["error"]["type"], "invalid_request_error") << "max_tokens is missing";
  body["max_tokens"] = 9;
  const auto [status, reply] = Post("/v1/messages", body);
  ASSERT_EQ(status, 200) << reply;
  EXPECT_EQ(reply["type"], "message");
  EXPECT_EQ(reply["stop_reason"], "max_tokens");
  EXPECT_EQ(reply["usage"]["output_tokens"], 9);
  EXPECT_EQ(reply["usage"]["cache_read_input_tokens"], 0);
  const std::string text = reply["content"][0]["text"];
  body["stream"] = true;
  auto events = ByType(Stream("/v1/messages", body));
  ASSERT_EQ(events["message_start"].size(), 1u);
  EXPECT_GT(events["message_start"][0]["message"]["usage"]["cache_read_input_tokens"], 50);
  std::string streamed;
  for (const JsonIn& delta : events["content_block_delta"]) streamed += delta["delta"]["text"];
  EXPECT_EQ(streamed, text);
  EXPECT_EQ(events["message_delta"][0]["delta"]["stop_reason"], "max_tokens");
  EXPECT_EQ(events["message_stop"].size(), 1u);
  body["tools"] = {{{"name", "x"}}};
  EXPECT_EQ(Post("/v1/messages", body).first, 400);
}

TEST_F(ServerTest, Responses) {
  Serve();
  JsonIn body = {
      {"input", TestWords(60, 1)}, {"instructions", "Be brief."}, {"max_output_tokens", 9}, {"ignore_eos", true}};
  const auto [status, reply] = Post("/v1/responses", body);
  ASSERT_EQ(status, 200) << reply;
  EXPECT_EQ(reply["status"], "incomplete");
  EXPECT_EQ(reply["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(reply["usage"]["output_tokens"], 9);
  const std::string text = reply["output"][0]["content"][0]["text"];
  JsonIn as_items = body;
  as_items["input"] = JsonIn::array(
      {{{"role", "user"}, {"content", JsonIn::array({{{"type", "input_text"}, {"text", body["input"]}}})}}});
  EXPECT_EQ(Post("/v1/responses", as_items).second["output"][0]["content"][0]["text"], text);
  body["stream"] = true;
  auto events = ByType(Stream("/v1/responses", body));
  std::string streamed;
  for (const JsonIn& delta : events["response.output_text.delta"]) streamed += delta["delta"];
  EXPECT_EQ(streamed, text);
  ASSERT_EQ(events["response.incomplete"].size(), 1u);
  EXPECT_EQ(events["response.incomplete"][0]["response"]["output"][0]["content"][0]["text"], text);
  EXPECT_EQ(events["response.created"].size(), 1u);
  for (const char* field : {"previous_response_id", "tools"}) {
    JsonIn refused = body;
    refused[field] = JsonIn::array({"x"});
    EXPECT_EQ(Post("/v1/responses", refused).second["error"]["code"], "unsupported") << field;
  }
  EXPECT_EQ(Post("/v1/responses", JsonIn::object()).first, 400);
}

TEST_F(ServerTest, DescribesItself) {
  Serve();
  const auto [status, document] = Get("/openapi.json");
  ASSERT_EQ(status, 200);
  const std::string text = document.dump();
  for (const char* path : {"/v1/chat/completions", "/v1/sessions/{id}/fork", "/metrics", "/openapi.json"}) {
    EXPECT_TRUE(document["paths"].contains(path)) << path;
  }
  // Every reference leads somewhere.
  const std::string prefix = "#/components/schemas/";
  for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at + 1)) {
    const std::string name = text.substr(at + prefix.size(), text.find('"', at) - at - prefix.size());
    EXPECT_TRUE(document["components"]["schemas"].contains(name)) << name;
  }
}

TEST_F(ServerTest, TokensAndTemplates) {
  Serve();
  EXPECT_EQ(Post("/tokenize", {{"content", "ab"}}).second["tokens"].size(),
            engine_->Tokenize("ab", false, true)->size());
  EXPECT_EQ(Post("/tokenize", {{"content", "ab"}, {"with_pieces", true}}).second["tokens"][0]["piece"], "a");
  const auto vllm = Post("/tokenize", {{"prompt", "ab"}, {"return_token_strs", true}}).second;
  EXPECT_EQ(vllm["count"], vllm["tokens"].size());
  EXPECT_EQ(vllm["max_model_len"], 4096);
  EXPECT_EQ(vllm["token_strs"].size(), vllm["tokens"].size());
  EXPECT_EQ(Post("/detokenize", {{"tokens", Post("/tokenize", {{"content", "some text"}}).second["tokens"]}})
                .second["content"],
            "some text");
  EXPECT_THAT(Post("/apply-template", ChatBody({{"user", "hello"}})).second["prompt"].get<std::string>(),
              HasSubstr("[user]hello[assistant]"));
  EXPECT_EQ(Post("/tokenize", JsonIn::object()).first, 400);
  EXPECT_EQ(Post("/detokenize", {{"tokens", {1 << 30}}}).first, 400);
}

TEST_F(ServerTest, WhatIsWrongIsSaid) {
  Serve();
  const JsonIn good = ChatBody({{"user", "x"}});
  const auto with = [&](const char* field, const JsonIn& value) {
    JsonIn body = good;
    body[field] = value;
    return body.dump();
  };
  const struct {
    const char* name;
    std::string body;
    const char* code;
  } kCases[] = {
      {"no JSON", "{", "invalid_value"},
      {"deep JSON", std::string(60'000, '['), "invalid_value"},
      {"bad UTF-8", "{\"messages\": \"\xff\"}", "invalid_value"},
      {"no messages", "{}", "invalid_value"},
      {"empty messages", with("messages", JsonIn::array()), "invalid_value"},
      {"a message that is none", with("messages", {5}), "invalid_value"},
      {"no role", with("messages", {{{"content", "x"}}}), "invalid_value"},
      {"no content", with("messages", {{{"role", "user"}}}), "invalid_value"},
      {"a picture", with("messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}), "unsupported"},
      {"the template's own error", with("messages", {{{"role", "thrown"}, {"content", "x"}}}), "invalid_value"},
      {"temperature", with("temperature", -1), "invalid_value"},
      {"a large temperature", with("temperature", 1e300), "invalid_value"},
      {"a text as temperature", with("temperature", "hot"), "invalid_value"},
      {"top_p", with("top_p", 0), "invalid_value"},
      {"n", with("n", 0), "invalid_value"},
      {"many answers", with("n", 1'000'000), "invalid_value"},
      {"max_tokens", with("max_tokens", -5), "invalid_value"},
      {"huge max_tokens", with("max_tokens", 1e18), "invalid_value"},
      {"top_logprobs alone", with("top_logprobs", 5), "invalid_value"},
      {"stop", with("stop", {1}), "invalid_value"},
      {"an empty stop", with("stop", ""), "invalid_value"},
      {"stream", with("stream", "yes"), "invalid_value"},
      {"policy", with("policy", "nonsense"), "invalid_value"},
      {"quality", with("quality", "best"), "invalid_value"},
      {"timeout", with("timeout", 0), "invalid_value"},
      {"tools", with("tools", {{{"type", "function"}}}), "unsupported"},
      {"a schema", with("response_format", {{"type", "json_schema"}}), "unsupported"},
      {"logit_bias", with("logit_bias", {{"5", 1}}), "unsupported"},
      {"too long", with("messages", {{{"role", "user"}, {"content", TestWords(4000, 1)}}}), "context_length_exceeded"},
      {"too long an answer", with("max_tokens", 4096), "context_length_exceeded"},
  };
  for (const auto& c : kCases) {
    const auto [status, reply] = Post("/v1/chat/completions", c.body);
    EXPECT_EQ(status, 400) << c.name << reply;
    ASSERT_TRUE(reply.is_object()) << c.name;
    EXPECT_EQ(reply["error"]["code"], c.code) << c.name << reply;
    EXPECT_EQ(reply["error"]["type"], "invalid_request_error") << c.name;
  }
  const auto thrown = Post("/v1/chat/completions", with("messages", {{{"role", "thrown"}, {"content", "x"}}})).second;
  EXPECT_THAT(thrown["error"]["message"].get<std::string>(), HasSubstr("no such role here"));
  JsonIn conflicting = good;
  conflicting["max_tokens"] = 5;
  conflicting["max_completion_tokens"] = 6;
  EXPECT_EQ(Post("/v1/chat/completions", conflicting).first, 400);
  JsonIn unknown = good;
  unknown["x_router_hint"] = {{"a", 1}};
  unknown["tools"] = JsonIn::array();
  EXPECT_EQ(Post("/v1/chat/completions", unknown).first, 200) << "unknown and empty fields are ignored";
  EXPECT_EQ(Post("/v1/chat/completions", std::string(2 << 20, ' ')).first, 413);
  EXPECT_EQ(Post("/v1/chat/completions", good, {{"Content-Encoding", "gzip"}}).first / 100, 4);
  EXPECT_EQ(Post("/v1/chat/completions", good, {{"X-Session-ID", std::string(7000, 'i')}}).first, 200);
  EXPECT_EQ(Post("/v1/chat/completions", good, {{"X-Session-ID", std::string(10'000, 'i')}}).first / 100, 4);
  EXPECT_EQ(Get("/health").first, 200);
}

/// What a dialogue says when it is alone, turn by turn.
std::vector<std::string> Alone(const Engine& engine, const std::string& policy, unsigned seed, int turns) {
  Session session = engine.NewSession(*Policy::Parse(policy));
  std::vector<ChatMessage> messages;
  std::vector<std::string> answers;
  for (int turn = 0; turn < turns; ++turn) {
    messages.push_back({"user", TestWords(turn == 0 ? 150 : 20, seed * 100 + static_cast<unsigned>(turn))});
    const auto tokens = engine.RenderChat(messages, true, session.tokens());
    EXPECT_TRUE(session.Sync(*tokens).ok());
    answers.push_back(session.Generate(TestSampling(16))->text);
    messages.push_back({"assistant", answers.back()});
  }
  return answers;
}

TEST_F(ServerTest, InterleavedDialoguesKeepTheirSecretsAndSayWhatTheySayAlone) {
  constexpr unsigned kDialogues = 12;
  constexpr int kTurns = 4;
  Serve();
  for (const std::string& policy : std::vector<std::string>{"dense", kSparsePolicy}) {
    std::vector<std::thread> clients;
    std::vector<std::vector<std::string>> answers(kDialogues);
    std::vector<int> wrong(kDialogues, 0), reused(kDialogues, 0);
    for (unsigned d = 0; d < kDialogues; ++d) {
      clients.emplace_back([&, d] {
        std::vector<Message> messages;
        for (int turn = 0; turn < kTurns; ++turn) {
          messages.push_back({"user", TestWords(turn == 0 ? 150 : 20, d * 100 + static_cast<unsigned>(turn))});
          JsonIn body = ChatBody(messages);
          body["policy"] = policy;
          body["max_tokens"] = 16;
          if (d % 3 == 0) body["session_id"] = policy + std::to_string(d);
          const auto [status, reply] = Post("/v1/chat/completions", body);
          if (status != 200) {
            ++wrong[d];
            return;
          }
          answers[d].push_back(TextOf(reply));
          reused[d] += reply["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
          const std::string whole = reply.dump();
          for (unsigned other = 0; other < kDialogues; ++other) {
            if (other != d && whole.find("secret" + std::to_string(other * 100)) != std::string::npos) ++wrong[d];
          }
          messages.push_back({"assistant", answers[d].back()});
        }
      });
    }
    for (std::thread& client : clients) client.join();
    for (unsigned d = 0; d < kDialogues; ++d) {
      SCOPED_TRACE(policy + " " + std::to_string(d));
      EXPECT_EQ(wrong[d], 0);
      EXPECT_GT(reused[d], 300);
      EXPECT_EQ(answers[d], Alone(*engine_, policy, d, kTurns));
    }
  }
}

TEST_F(ServerTest, KeysSeparateTenants) {
  ServerOptions options = Options();
  options.http.api_keys = {"key-one", "key-two"};
  Serve(options);
  const httplib::Headers one = {{"Authorization", "Bearer key-one"}}, two = {{"x-api-key", "key-two"}};
  JsonIn body = ChatBody({{"user", TestWords(150, 1)}});
  EXPECT_EQ(Post("/v1/chat/completions", body).first, 401);
  EXPECT_EQ(Post("/v1/chat/completions", body, {{"Authorization", "Bearer key-onex"}}).first, 401);
  EXPECT_EQ(Get("/v1/models", {{"Authorization", "key-one"}}).first, 401);
  EXPECT_EQ(Get("/health").first, 200);
  const auto cached = [&](const httplib::Headers& headers) {
    const auto [status, reply] = Post("/v1/chat/completions", body, headers);
    EXPECT_EQ(status, 200);
    return reply["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
  };
  EXPECT_EQ(cached(one), 0);
  EXPECT_EQ(cached(two), 0);
  EXPECT_GT(cached(one), 100);
  body["cache_salt"] = "pepper";
  EXPECT_EQ(cached(one), 0);
  EXPECT_GT(cached(one), 100);
  EXPECT_EQ(Get("/v1/sessions", one).second["data"].size(), 2u);
  const auto sessions = Get("/v1/sessions", two).second["data"];
  ASSERT_EQ(sessions.size(), 1u);
  const std::string id = sessions[0]["id"];
  EXPECT_EQ(Get("/v1/sessions/" + id, one).first, 404);
  EXPECT_EQ(Get("/v1/sessions/" + id, two).first, 200);
}

TEST_F(ServerTest, SessionsAreListedPinnedForkedAndDeleted) {
  Serve();
  JsonIn body = ChatBody({{"user", TestWords(50, 1)}});
  body["metadata"] = {{"session_id", "../../etc/passwd"}};
  const auto reply = Post("/v1/chat/completions", body).second;
  const std::string id = reply["loopserve"]["session_id"];
  const auto list = Get("/v1/sessions").second["data"];
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0]["name"], "../../etc/passwd");
  EXPECT_EQ(list[0]["turns"], 1);
  EXPECT_EQ(Post("/v1/sessions/" + id + "/pin", JsonIn::object()).second["pinned"], true);
  EXPECT_EQ(Post("/v1/sessions/" + id + "/pin", {{"pinned", false}}).second["pinned"], false);
  EXPECT_EQ(Post("/v1/sessions/" + id + "/pin", {{"pinned", 3}}).first, 400);
  const auto fork = Post("/v1/sessions/" + id + "/fork", {{"session_id", "copy"}}).second;
  EXPECT_EQ(fork["name"], "copy");
  EXPECT_EQ(fork["exclusive_kv_bytes"], 0);
  auto client = Client();
  EXPECT_EQ(client.Delete("/v1/sessions/" + id)->status, 200);
  EXPECT_EQ(client.Delete("/v1/sessions/" + id)->status, 404);
  EXPECT_EQ(Get("/v1/sessions").second["data"].size(), 1u);
}

TEST_F(ServerTest, AnEditedHistorySaysWhereItDiffers) {
  Serve();
  std::vector<Message> messages = {{"user", TestWords(50, 1)}};
  JsonIn body = ChatBody(messages);
  const httplib::Headers name = {{"X-Conversation-Id", "c"}};
  const auto first = Post("/v1/chat/completions", body, name).second;
  messages[0].content[messages[0].content.size() - 3] = 'Q';
  const auto second = Post("/v1/chat/completions", ChatBody(messages), name).second;
  EXPECT_EQ(second["loopserve"]["session_id"], first["loopserve"]["session_id"]);
  EXPECT_EQ(second["loopserve"]["divergence"], "history_differs");
  EXPECT_EQ(second["loopserve"]["diverged_at"], second["usage"]["prompt_tokens_details"]["cached_tokens"]);
  EXPECT_GT(second["loopserve"]["diverged_at"], 20);
}

TEST_F(ServerTest, MetricsHaveTheNamesThatDashboardsRead) {
  Serve();
  ASSERT_EQ(Post("/v1/chat/completions", ChatBody({{"user", TestWords(50, 1)}})).first, 200);
  auto client = Client();
  const std::string text = client.Get("/metrics")->body;
  for (const char* name :
       {"vllm:num_requests_running{", "vllm:num_requests_waiting{", "vllm:kv_cache_usage_perc{",
        "vllm:prefix_cache_queries_total{", "vllm:prefix_cache_hits_total{", "vllm:time_to_first_token_seconds_bucket{",
        "vllm:inter_token_latency_seconds_bucket{", "vllm:request_time_per_output_token_seconds_count{",
        "vllm:e2e_request_latency_seconds_count{", "vllm:request_queue_time_seconds_count{",
        "vllm:request_prefill_time_seconds_count{", "vllm:request_decode_time_seconds_count{",
        "loopserve:prefill_density_count{", "loopserve:sessions{"}) {
    EXPECT_THAT(text, HasSubstr(name));
  }
  EXPECT_THAT(text, HasSubstr("vllm:e2e_request_latency_seconds_count{model_name=\"tiny\"} 1"));
  EXPECT_THAT(text, HasSubstr("model_name=\"tiny\""));
}

TEST_F(ServerTest, AClientThatGoesAwayFreesItsWork) {
  Serve();
  for (const bool stream : {true, false}) {
    JsonIn body = ChatBody({{"user", TestWords(20, 1)}});
    body["max_tokens"] = 3900;
    body["stream"] = stream;
    {
      auto client = Client();
      client.set_read_timeout(0, 200'000);
      client.Post("/v1/chat/completions", body.dump(), "application/json");
    }
    for (int i = 0; i < 300 && server_->context().scheduler->n_running() > 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_EQ(server_->context().scheduler->n_running(), 0u) << stream;
  }
}

TEST_F(ServerTest, EndingLetsAStreamEnd) {
  Serve();
  JsonIn body = ChatBody({{"user", TestWords(20, 1)}});
  body["max_tokens"] = 300;
  body["stream"] = true;
  std::atomic<bool> began{false};
  std::string received;
  std::thread reader([&] {
    auto client = Client();
    httplib::Request request;
    request.method = "POST";
    request.path = "/v1/chat/completions";
    request.body = body.dump();
    request.content_receiver = [&](const char* data, size_t n, size_t, size_t) {
      received.append(data, n);
      began = true;
      return true;
    };
    client.send(request);
  });
  while (!began) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  server_->Stop(std::chrono::seconds(60));
  reader.join();
  EXPECT_THAT(received, HasSubstr("data: [DONE]"));
}

TEST_F(ServerTest, ASilentClientIsHungUpOn) {
  ServerOptions options = Options();
  options.http.read_timeout_s = 1;
  Serve(options);
  httplib::Client other = Client();
  // Headers promise a body that never comes.
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(server_->port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
  ASSERT_EQ(send(fd, head.data(), head.size(), MSG_NOSIGNAL), static_cast<ssize_t>(head.size()));
  EXPECT_EQ(other.Get("/health")->status, 200);
  char buffer[4096];
  while (recv(fd, buffer, sizeof(buffer), 0) > 0) {
  }
  close(fd);
  EXPECT_EQ(other.Get("/health")->status, 200);
}

TEST(ApiKeysTest, FilesAndTenants) {
  const std::string path = testing::TempDir() + "/keys_" + std::to_string(getpid());
  EXPECT_EQ(ReadApiKeys(path).status().code(), StatusCode::kNotFound);
  const auto write = [&](const std::string& text) { std::ofstream(path) << text; };
  write("# nothing\n\n");
  EXPECT_EQ(ReadApiKeys(path).status().code(), StatusCode::kInvalidArgument);
  write("with space\n");
  EXPECT_EQ(ReadApiKeys(path).status().code(), StatusCode::kInvalidArgument);
  write("# mine\nkey-one\r\nkey-two");
  const auto keys = ReadApiKeys(path);
  ASSERT_TRUE(keys.ok());
  EXPECT_EQ(*keys, (std::vector<std::string>{"key-one", "key-two"}));
  const ApiKeys tenants(*keys);
  EXPECT_TRUE(tenants.TenantOf("key-one").has_value());
  EXPECT_NE(tenants.TenantOf("key-one"), tenants.TenantOf("key-two"));
  EXPECT_FALSE(tenants.TenantOf("key-on").has_value());
  EXPECT_FALSE(tenants.TenantOf("").has_value());
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace loopserve::server
