// Tools and JSON in the four routes of answers: a random model, whose grammar alone gives its answers their form.

#include "src/server/test_server.h"

namespace loopserve::server {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const JsonIn kPerson = {{"type", "object"},
                        {"properties",
                         {{"name", {{"type", "string"}, {"maxLength", 8}}},
                          {"age", {{"type", "integer"}, {"minimum", 0}, {"maximum", 150}}},
                          {"kind", {{"enum", {"cat", "dog"}}}}}},
                        {"required", {"name", "age", "kind"}},
                        {"additionalProperties", false}};

void ExpectPerson(const JsonIn& person) {
  ASSERT_TRUE(person.is_object()) << person;
  EXPECT_EQ(person.size(), 3u);
  EXPECT_EQ(person.begin().key(), "name") << "in the schema's order";
  EXPECT_TRUE(person["name"].is_string());
  EXPECT_TRUE(AsInt(person["age"], 0, 150)) << person;
  EXPECT_TRUE(person["kind"] == "cat" || person["kind"] == "dog");
}

class ServerToolsTest : public ServerTest {
 protected:
  static JsonIn Ask() {
    JsonIn body = ChatBody({{"user", TestWords(30, 1)}});
    body["max_tokens"] = 400;
    return body;
  }
  static JsonIn Tool(const std::string& name, const JsonIn& parameters) {
    return {{"type", "function"}, {"function", {{"name", name}, {"description", "x"}, {"parameters", parameters}}}};
  }
};

TEST_F(ServerToolsTest, AnswersHaveTheSchemasFormUnderEveryPolicy) {
  Serve();
  JsonIn body = Ask();
  body["response_format"] = {{"type", "json_schema"},
                             {"json_schema", {{"name", "p"}, {"strict", true}, {"schema", kPerson}}}};
  for (const char* policy : {"dense", kSparsePolicy}) {
    for (int seed = 0; seed < 4; ++seed) {
      body["policy"] = policy;
      body["temperature"] = seed == 0 ? 0.0 : 2.0;
      body["seed"] = seed;
      const auto [status, reply] = Post("/v1/chat/completions", body);
      ASSERT_EQ(status, 200) << reply;
      EXPECT_EQ(reply["choices"][0]["finish_reason"], "stop");
      ExpectPerson(JsonIn::parse(TextOf(reply), nullptr, false));
    }
  }
  body["n"] = 3;
  const auto [status, reply] = Post("/v1/chat/completions", body);
  ASSERT_EQ(status, 200) << reply;
  ASSERT_EQ(reply["choices"].size(), 3u);
  for (const JsonIn& choice : reply["choices"])
    ExpectPerson(JsonIn::parse(choice["message"]["content"].get<std::string>()));
}

TEST_F(ServerToolsTest, ResponsesHaveFormatsToo) {
  Serve();
  JsonIn body = {{"input", TestWords(30, 1)}, {"max_output_tokens", 400}, {"temperature", 1}, {"seed", 4}};
  body["text"] = {{"format", {{"type", "json_schema"}, {"name", "p"}, {"schema", kPerson}}}};
  const auto [status, reply] = Post("/v1/responses", body);
  ASSERT_EQ(status, 200) << reply;
  ExpectPerson(JsonIn::parse(reply["output"][0]["content"][0]["text"].get<std::string>()));
  body["text"]["format"] = {{"type", "json_object"}};
  body["max_output_tokens"] = 60;
  const std::string text = Post("/v1/responses", body).second["output"][0]["content"][0]["text"];
  EXPECT_THAT(text, StartsWith("{"));
}

TEST_F(ServerToolsTest, ACallThatIsRequiredIsMade) {
  Serve();
  JsonIn body = Ask();
  body["tools"] = JsonIn::array({Tool("get_person", kPerson), Tool("do_nothing", JsonIn::object())});
  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "get_person"}}}};
  body["temperature"] = 1;
  body["seed"] = 5;
  const auto [status, reply] = Post("/v1/chat/completions", body);
  ASSERT_EQ(status, 200) << reply;
  const JsonIn& choice = reply["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_TRUE(choice["message"]["content"].is_null());
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
  const JsonIn& call = choice["message"]["tool_calls"][0];
  EXPECT_THAT(call["id"].get<std::string>(), StartsWith("call_"));
  EXPECT_EQ(call["function"]["name"], "get_person");
  const std::string arguments = call["function"]["arguments"];
  ExpectPerson(JsonIn::parse(arguments));

  body["stream"] = true;
  std::string name, streamed, finish;
  for (const std::string& event : Stream("/v1/chat/completions", body)) {
    if (event == "[DONE]") continue;
    const JsonIn delta = JsonIn::parse(event)["choices"][0];
    if (!delta["finish_reason"].is_null()) finish = delta["finish_reason"];
    EXPECT_EQ(delta["delta"].value("content", ""), "");
    if (!delta["delta"].contains("tool_calls")) continue;
    const JsonIn& part = delta["delta"]["tool_calls"][0];
    EXPECT_EQ(part["index"], 0);
    name += part["function"].value("name", "");
    streamed += part["function"].value("arguments", "");
  }
  EXPECT_EQ(name, "get_person");
  EXPECT_EQ(streamed, arguments);
  EXPECT_EQ(finish, "tool_calls");

  body["stream"] = false;
  body["tool_choice"] = "required";
  body["tools"] = JsonIn::array({Tool("do_nothing", JsonIn::object())});
  body["parallel_tool_calls"] = false;
  const auto required = Post("/v1/chat/completions", body).second["choices"][0]["message"]["tool_calls"];
  ASSERT_EQ(required.size(), 1u);
  EXPECT_EQ(required[0]["function"]["arguments"], "{}");
}

TEST_F(ServerToolsTest, CallsAndWhatTheyBroughtGoOnInTheDialogue) {
  Serve();
  JsonIn body = Ask();
  body["tools"] = JsonIn::array({Tool("get_person", kPerson)});
  body["tool_choice"] = "required";
  body["parallel_tool_calls"] = false;
  const auto first = Post("/v1/chat/completions", body).second;
  body["messages"].push_back(first["choices"][0]["message"]);
  body["messages"].push_back(
      {{"role", "tool"}, {"tool_call_id", first["choices"][0]["message"]["tool_calls"][0]["id"]}, {"content", "42"}});
  body["tool_choice"] = "none";
  body["max_tokens"] = 8;
  // Without tools their description is gone from the prompt; with them the past is found again.
  EXPECT_EQ(Post("/v1/chat/completions", body).first, 200);
  body["tool_choice"] = "auto";
  const auto [status, second] = Post("/v1/chat/completions", body);
  ASSERT_EQ(status, 200) << second;
  EXPECT_GE(second["usage"]["prompt_tokens_details"]["cached_tokens"], first["usage"]["prompt_tokens"]);
  EXPECT_THAT(Post("/apply-template", body).second["prompt"].get<std::string>(),
              HasSubstr("<tool_response>\n42\n</tool_response>"));
}

TEST_F(ServerToolsTest, ToolsInAnthropicsForm) {
  Serve();
  JsonIn body = Ask();
  body["tools"] = JsonIn::array({{{"name", "get_person"}, {"input_schema", kPerson}}});
  body["tool_choice"] = {{"type", "tool"}, {"name", "get_person"}};
  const auto [status, reply] = Post("/v1/messages", body);
  ASSERT_EQ(status, 200) << reply;
  EXPECT_EQ(reply["stop_reason"], "tool_use");
  ASSERT_EQ(reply["content"].size(), 1u);
  EXPECT_EQ(reply["content"][0]["type"], "tool_use");
  ExpectPerson(reply["content"][0]["input"]);

  JsonIn stream = body;
  stream["stream"] = true;
  auto events = ByType(Stream("/v1/messages", stream));
  EXPECT_EQ(events["content_block_start"][0]["content_block"]["name"], "get_person");
  std::string input;
  for (const JsonIn& delta : events["content_block_delta"]) input += delta["delta"]["partial_json"];
  EXPECT_EQ(JsonIn::parse(input), reply["content"][0]["input"]);
  EXPECT_EQ(events["message_delta"][0]["delta"]["stop_reason"], "tool_use");

  body["messages"].push_back({{"role", "assistant"}, {"content", reply["content"]}});
  body["messages"].push_back(
      {{"role", "user"},
       {"content",
        JsonIn::array({{{"type", "tool_result"}, {"tool_use_id", reply["content"][0]["id"]}, {"content", "42"}},
                       {{"type", "text"}, {"text", "and?"}}})}});
  body["tool_choice"] = {{"type", "auto"}};
  body["max_tokens"] = 8;
  const auto [next_status, next] = Post("/v1/messages", body);
  ASSERT_EQ(next_status, 200) << next;
  EXPECT_GT(next["usage"]["cache_read_input_tokens"], 30);
}

TEST_F(ServerToolsTest, ToolsInResponses) {
  Serve();
  JsonIn body = {{"input", TestWords(30, 1)},
                 {"max_output_tokens", 400},
                 {"tool_choice", "required"},
                 {"parallel_tool_calls", false}};
  body["tools"] = JsonIn::array({{{"type", "function"}, {"name", "get_person"}, {"parameters", kPerson}}});
  const auto [status, reply] = Post("/v1/responses", body);
  ASSERT_EQ(status, 200) << reply;
  ASSERT_EQ(reply["output"].size(), 1u);
  const JsonIn& call = reply["output"][0];
  EXPECT_EQ(call["type"], "function_call");
  ExpectPerson(JsonIn::parse(call["arguments"].get<std::string>()));
  JsonIn stream = body;
  stream["stream"] = true;
  auto events = ByType(Stream("/v1/responses", stream));
  std::string streamed;
  for (const JsonIn& delta : events["response.function_call_arguments.delta"]) streamed += delta["delta"];
  EXPECT_EQ(streamed, call["arguments"]);
  EXPECT_EQ(events["response.completed"][0]["response"]["output"][0]["arguments"], call["arguments"]);
  body["input"] = JsonIn::array({{{"role", "user"}, {"content", body["input"]}},
                                 call,
                                 {{"type", "function_call_output"}, {"call_id", call["call_id"]}, {"output", "42"}}});
  body["tool_choice"] = "none";
  body["max_output_tokens"] = 8;
  EXPECT_EQ(Post("/v1/responses", body).second["output"][0]["type"], "message");
}

TEST_F(ServerToolsTest, WhatCannotBeEnforcedIsRefusedByName) {
  Serve();
  const JsonIn bad = {{"type", "object"}, {"properties", {{"a", {{"type", "string"}, {"pattern", "(?=x)"}}}}}};
  const auto refused = [&](JsonIn fields, const std::string& param, const std::string& code,
                           const char* path = "/v1/chat/completions") {
    JsonIn body = std::string(path) == "/v1/responses" ? JsonIn{{"input", "x"}} : Ask();
    body.update(fields);
    const auto [status, reply] = Post(path, body);
    EXPECT_EQ(status, 400) << reply;
    EXPECT_EQ(reply["error"]["code"], code) << reply;
    EXPECT_EQ(reply["error"]["param"], param) << reply;
  };
  refused({{"tools", JsonIn::array({Tool("f", bad)})}}, "tools[0].function.parameters.properties.a.pattern",
          "unsupported");
  refused({{"tools", JsonIn::array({Tool("f g", kPerson)})}}, "tools[0].function.name", "invalid_value");
  refused({{"tools", JsonIn::array({Tool("f", kPerson), Tool("f", kPerson)})}}, "tools[1].function.name",
          "invalid_value");
  refused({{"tools", JsonIn::array({{{"type", "web_search"}}})}}, "tools[0].type", "unsupported");
  refused({{"tools", JsonIn::array({Tool("f", {{"type", "string"}})})}}, "tools[0].function.parameters.type",
          "invalid_value");
  refused({{"tool_choice", "required"}}, "tool_choice", "invalid_value");
  refused({{"tool_choice", "perhaps"}}, "tool_choice", "invalid_value");
  refused({{"tools", JsonIn::array({Tool("f", kPerson)})},
           {"tool_choice", {{"type", "function"}, {"function", {{"name", "g"}}}}}},
          "tool_choice", "invalid_value");
  refused({{"response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", bad}}}}}},
          "response_format.json_schema.schema.properties.a.pattern", "unsupported");
  refused({{"response_format", {{"type", "json_schema"}}}}, "response_format.json_schema.schema", "invalid_value");
  refused({{"response_format", {{"type", "grammar"}}}}, "response_format.type", "unsupported");
  refused({{"response_format", JsonIn::object()}}, "response_format.type", "invalid_value");
  refused({{"text", {{"format", {{"type", "json_schema"}, {"schema", {{"not", true}}}}}}}}, "text.format.schema.not",
          "unsupported", "/v1/responses");
  refused({{"tools", JsonIn::array({{{"type", "file_search"}}})}}, "tools[0].type", "unsupported", "/v1/responses");
  // Arguments that nothing has to be known of may have any schema.
  JsonIn loose = Tool("f", bad);
  loose["function"]["strict"] = false;
  JsonIn body = Ask();
  body["tools"] = JsonIn::array({loose});
  body["max_tokens"] = 4;
  EXPECT_EQ(Post("/v1/chat/completions", body).first, 200);
}

}  // namespace
}  // namespace loopserve::server
