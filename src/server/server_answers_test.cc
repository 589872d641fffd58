// The four routes of answers, streamed and whole.

#include "src/server/test_server.h"

namespace loopserve::server {
namespace {

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

TEST_F(ServerTest, TheServersSeedIsThatOfRequestsWithoutOne) {
  ServerOptions options = Options();
  options.defaults.seed = 7;
  Serve(options);
  JsonIn body = {{"prompt", "one text"}, {"max_tokens", 12}, {"ignore_eos", true}, {"temperature", 1}};
  const auto text_of = [&](const char* salt) {
    body["cache_salt"] = salt;
    return Post("/v1/completions", body).second["choices"][0]["text"].get<std::string>();
  };
  const std::string unsaid = text_of("a");
  EXPECT_EQ(text_of("b"), unsaid);
  body["seed"] = 7;
  EXPECT_EQ(text_of("c"), unsaid);
  body["seed"] = -1;  // as llama.cpp's server has it: random
  EXPECT_NE(text_of("d"), unsaid);
}

TEST_F(ServerTest, SeedsAndStopsMeanTheSameInOneRequestAndInSeveral) {
  Serve();
  JsonIn body = ChatBody({{"user", TestWords(40, 1)}});
  body["max_tokens"] = 12;
  body["temperature"] = 1;
  body["seed"] = 7;
  body["n"] = 3;
  // The last token of a prompt that is held is computed anew, in another order of sums: each request begins afresh.
  body["cache_salt"] = "three";
  const auto three = Post("/v1/chat/completions", body).second;
  ASSERT_EQ(three["choices"].size(), 3u);
  body["n"] = 1;
  for (int i = 0; i < 3; ++i) {
    body["seed"] = 7 + i;
    body["cache_salt"] = std::to_string(i);
    EXPECT_EQ(TextOf(Post("/v1/chat/completions", body).second), three["choices"][i]["message"]["content"]) << i;
  }
  const std::string text = three["choices"][2]["message"]["content"];
  const std::string stop = text.substr(text.size() / 2, 2);
  body["stop"] = JsonIn::array({"not in it", stop});
  body["cache_salt"] = "stop";
  const auto stopped = Post("/v1/chat/completions", body).second;
  EXPECT_EQ(TextOf(stopped), text.substr(0, text.find(stop)));
  EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");
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
  body["mcp_servers"] = {{{"name", "x"}}};
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
  for (const char* field : {"previous_response_id", "conversation"}) {
    JsonIn refused = body;
    refused[field] = JsonIn::array({"x"});
    EXPECT_EQ(Post("/v1/responses", refused).second["error"]["code"], "unsupported") << field;
  }
  EXPECT_EQ(Post("/v1/responses", JsonIn::object()).first, 400);
}

}  // namespace
}  // namespace loopserve::server
