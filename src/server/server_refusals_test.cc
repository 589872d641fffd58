// Wrong requests get an error that says what is wrong.
#include "src/server/test_server.h"

namespace loopserve::server {
namespace {

using testing::HasSubstr;

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
    // What is wrong with a field names it.
    const JsonIn& param = reply["error"]["param"];
    if (param.is_string()) {
      EXPECT_TRUE(JsonIn::parse(c.body).contains(
                      param.get<std::string>().substr(0, param.get<std::string>().find_first_of(".["))) ||
                  param == "messages")
          << reply;
    }
  }
  const auto thrown = Post("/v1/chat/completions", with("messages", {{{"role", "thrown"}, {"content", "x"}}})).second;
  EXPECT_THAT(thrown["error"]["message"].get<std::string>(), HasSubstr("no such role here"));
  const auto param_of = [&](const char* field, const JsonIn& value) {
    return Post("/v1/chat/completions", with(field, value)).second["error"]["param"];
  };
  EXPECT_EQ(param_of("temperature", -1), "temperature");
  EXPECT_EQ(param_of("top_logprobs", 5), "top_logprobs");
  EXPECT_EQ(param_of("logit_bias", {{"5", 1}}), "logit_bias");
  EXPECT_EQ(param_of("stop", ""), "stop[0]");
  EXPECT_EQ(param_of("messages", {{{"content", "x"}}}), "messages[0].role");
  EXPECT_EQ(param_of("stream_options", {{"include_usage", 3}}), "stream_options.include_usage");
  EXPECT_TRUE(param_of("messages", {{{"role", "thrown"}, {"content", "x"}}}).is_null());
  EXPECT_TRUE(Post("/v1/chat/completions", std::string("{")).second["error"]["param"].is_null());
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

}  // namespace
}  // namespace loopserve::server
