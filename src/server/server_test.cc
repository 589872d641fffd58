// What the server says of itself: /health, models, its own description, tokens, metrics.
#include "src/server/server.h"

#include "src/server/test_server.h"

namespace loopserve::server {
namespace {

using testing::HasSubstr;

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
  EXPECT_THAT(text, HasSubstr("loopserve:reselections_total{model_name=\"tiny\"} 0"));
  JsonIn sparse = ChatBody({{"user", TestWords(50, 2)}});
  sparse["policy"] = kSparsePolicy;
  ASSERT_EQ(Post("/v1/chat/completions", sparse).first, 200);
  // Two layers chose for each of the seven tokens after the first.
  EXPECT_THAT(client.Get("/metrics")->body, HasSubstr("loopserve:reselections_total{model_name=\"tiny\"} 14"));
}

}  // namespace
}  // namespace loopserve::server
