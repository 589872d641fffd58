// /tokenize (llama.cpp's form with `content`, vLLM's with `prompt` or `messages`), /detokenize, /apply-template.
#include "src/server/api_error.h"
#include "src/server/chat_messages.h"
#include "src/server/json_reader.h"
#include "src/server/routes.h"
#include "src/server/tools.h"

namespace loopserve::server {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 22;
/// With the text of each: a reply takes some hundred bytes for every one.
constexpr size_t kMaxPieces = size_t{1} << 18;

Status CheckPieces(const std::vector<Token>& tokens, const char* field) {
  if (tokens.size() <= kMaxPieces) return Status::Ok();
  return Status(StatusCode::kInvalidArgument,
                std::string(field) + " is for up to " + std::to_string(kMaxPieces) + " tokens");
}

Result<Json> TokenizeForLlamaCpp(const Engine& engine, const Fields& fields, const std::string& content) {
  LS_ASSIGN_OR_RETURN(const auto add_special, fields.Bool("add_special"));
  LS_ASSIGN_OR_RETURN(const auto parse_special, fields.Bool("parse_special"));
  LS_ASSIGN_OR_RETURN(const auto with_pieces, fields.Bool("with_pieces"));
  LS_ASSIGN_OR_RETURN(const std::vector<Token> tokens,
                      engine.Tokenize(content, add_special.value_or(false), parse_special.value_or(true)));
  if (!with_pieces.value_or(false)) return Json{{"tokens", tokens}};
  LS_RETURN_IF_ERROR(CheckPieces(tokens, "with_pieces"));
  Json list = Json::array();
  for (const Token token : tokens) list.push_back({{"id", token}, {"piece", engine.Detokenize({&token, 1}, true)}});
  return Json{{"tokens", std::move(list)}};
}

Result<std::vector<Token>> RenderMessages(const Engine& engine, const JsonIn& body, bool add_generation_prompt) {
  LS_ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, ParseMessages(body));
  LS_ASSIGN_OR_RETURN(const ToolRequest tools, ParseChatTools(body));
  const std::string shown = PlaceTools(engine, tools, &messages);
  LS_ASSIGN_OR_RETURN(const RenderedPrompt prompt, engine.Render({messages, add_generation_prompt, shown}));
  return prompt.With({});
}

Result<Json> TokenizeForVllm(const Engine& engine, const JsonIn& body) {
  const Fields fields(body);
  LS_ASSIGN_OR_RETURN(const auto prompt, fields.Text("prompt"));
  LS_ASSIGN_OR_RETURN(const auto strings, fields.Bool("return_token_strs"));
  std::vector<Token> tokens;
  if (prompt) {
    LS_ASSIGN_OR_RETURN(const auto add_special, fields.Bool("add_special_tokens"));
    LS_ASSIGN_OR_RETURN(tokens, engine.Tokenize(*prompt, add_special.value_or(true), true));
  } else {
    LS_ASSIGN_OR_RETURN(const auto add_prompt, fields.Bool("add_generation_prompt"));
    LS_ASSIGN_OR_RETURN(tokens, RenderMessages(engine, body, add_prompt.value_or(true)));
  }
  Json json{{"count", tokens.size()}, {"max_model_len", engine.model().context_tokens}, {"tokens", tokens}};
  if (strings.value_or(false)) {
    LS_RETURN_IF_ERROR(CheckPieces(tokens, "return_token_strs"));
    Json list = Json::array();
    for (const Token token : tokens) list.push_back(engine.Detokenize({&token, 1}, true));
    json["token_strs"] = std::move(list);
  } else {
    json["token_strs"] = nullptr;
  }
  return json;
}

Result<Json> Tokenize(const Context& context, const HttpRequest& http) {
  LS_ASSIGN_OR_RETURN(const JsonIn body, ParseBody(http.body));
  const Fields fields(body);
  LS_ASSIGN_OR_RETURN(const auto content, fields.Text("content"));
  if (content) return TokenizeForLlamaCpp(*context.engine, fields, *content);
  if (fields.Find("prompt") == nullptr && fields.Find("messages") == nullptr) {
    return Status(StatusCode::kInvalidArgument, "one of content, prompt and messages is needed");
  }
  return TokenizeForVllm(*context.engine, body);
}

Result<Json> Detokenize(const Context& context, const HttpRequest& http) {
  LS_ASSIGN_OR_RETURN(const JsonIn body, ParseBody(http.body));
  LS_ASSIGN_OR_RETURN(const JsonIn* list, Fields(body).List("tokens", kMaxTokens));
  if (list == nullptr) return Status(StatusCode::kInvalidArgument, "tokens is missing");
  std::vector<Token> tokens;
  for (const JsonIn& item : *list) {
    const std::optional<int64_t> token = AsInt(item, 0, context.engine->model().n_vocab - 1);
    if (!token) return Status(StatusCode::kInvalidArgument, "tokens has one outside the vocabulary");
    tokens.push_back(static_cast<Token>(*token));
  }
  const std::string text = context.engine->Detokenize(tokens, true);
  return Json{{"content", text}, {"prompt", text}};
}

Result<Json> ApplyTemplate(const Context& context, const HttpRequest& http) {
  LS_ASSIGN_OR_RETURN(const JsonIn body, ParseBody(http.body));
  LS_ASSIGN_OR_RETURN(const auto add_prompt, Fields(body).Bool("add_generation_prompt"));
  LS_ASSIGN_OR_RETURN(const std::vector<Token> tokens,
                      RenderMessages(*context.engine, body, add_prompt.value_or(true)));
  return Json{{"prompt", context.engine->Detokenize(tokens, true)}};
}

}  // namespace

void AddTokenRoutes(Context& context, std::vector<Route>* routes) {
  const auto add = [&](const char* path, Result<Json> (*serve)(const Context&, const HttpRequest&)) {
    routes->push_back({"POST", path, [&context, serve](const HttpRequest& http) {
                         const Result<Json> json = serve(context, http);
                         return json.ok() ? JsonReply(*json) : ErrorReply(json.status());
                       }});
  };
  add("/tokenize", Tokenize);
  add("/detokenize", Detokenize);
  add("/apply-template", ApplyTemplate);
}

}  // namespace loopserve::server
