// /v1/completions in OpenAI's older form: a prompt of text or tokens is continued.
#include <algorithm>
#include <utility>

#include "src/base/utf8.h"
#include "src/server/generation.h"
#include "src/server/generation_request.h"
#include "src/server/logprobs.h"
#include "src/server/routes.h"

namespace loopserve::server {
namespace {

constexpr size_t kMaxPrompts = 64;
constexpr size_t kMaxPromptTokens = size_t{1} << 24;
constexpr int kDefaultMaxTokens = 16;

struct CompletionRequest {
  GenerationRequest generation;
  std::vector<JobSpec> specs;
};

const std::vector<std::string>& UnsupportedFields() {
  static const std::vector<std::string> fields = {"echo",
                                                  "suffix",
                                                  "logit_bias",
                                                  "grammar",
                                                  "json_schema",
                                                  "guided_json",
                                                  "guided_regex",
                                                  "guided_choice",
                                                  "guided_grammar",
                                                  "structured_outputs",
                                                  "prompt_logprobs",
                                                  "use_beam_search",
                                                  "prompt_embeds",
                                                  "image_data"};
  return fields;
}

bool IsTokenList(const JsonIn& value) { return value.is_array() && !value.empty() && value[0].is_number(); }

Result<std::vector<Token>> ParseTokenList(const Context& context, const JsonIn& list) {
  std::vector<Token> tokens;
  if (list.size() > kMaxPromptTokens) return Status(StatusCode::kInvalidArgument, "the prompt has too many tokens");
  for (const JsonIn& item : list) {
    const std::optional<int64_t> token = AsInt(item, 0, context.engine->model().n_vocab - 1);
    if (!token) return Status(StatusCode::kInvalidArgument, "the prompt has a token outside the vocabulary");
    tokens.push_back(static_cast<Token>(*token));
  }
  return tokens;
}

Result<std::vector<Token>> ParsePrompt(const Context& context, const JsonIn& prompt) {
  std::vector<Token> tokens;
  if (IsTokenList(prompt)) {
    LS_ASSIGN_OR_RETURN(tokens, ParseTokenList(context, prompt));
  } else if (prompt.is_string()) {
    LS_ASSIGN_OR_RETURN(tokens, context.engine->Tokenize(prompt.get_ref<const std::string&>(), true, true));
  } else {
    return Status(StatusCode::kInvalidArgument, "prompt must be a string, a list of strings, or of tokens");
  }
  if (tokens.empty()) return Status(StatusCode::kInvalidArgument, "the prompt is empty");
  return tokens;
}

Result<CompletionRequest> ParseCompletion(const Context& context, const HttpRequest& http) {
  LS_ASSIGN_OR_RETURN(const JsonIn body, ParseBody(http.body));
  LS_RETURN_IF_ERROR(RefuseFields(body, UnsupportedFields()));
  const Fields fields(body);
  CompletionRequest request;
  LS_ASSIGN_OR_RETURN(request.generation, ParseGeneration(context, http, body));
  JobSpec& spec = request.generation.spec;
  if (spec.sampling.max_tokens < 0) spec.sampling.max_tokens = kDefaultMaxTokens;  // as in OpenAI's
  LS_RETURN_IF_ERROR(ParseMaxTokens(body, {"max_tokens", "n_predict"}, &spec.sampling));
  LS_ASSIGN_OR_RETURN(const std::optional<int64_t> best_of, fields.Int("best_of", 1, 16));
  if (best_of && *best_of != spec.n) return Status(StatusCode::kUnsupported, "best_of other than n is not supported");
  LS_ASSIGN_OR_RETURN(const std::optional<int64_t> logprobs, fields.Int("logprobs", 0, kMaxTopLogprobs));
  spec.top_logprobs = logprobs ? static_cast<int>(*logprobs) : -1;
  const JsonIn* prompt = fields.Find("prompt");
  if (prompt == nullptr) return Status(StatusCode::kInvalidArgument, "prompt is missing");
  const bool several = prompt->is_array() && !IsTokenList(*prompt);
  if (several && (prompt->empty() || prompt->size() > kMaxPrompts)) {
    return Status(StatusCode::kInvalidArgument, "prompt must be a list of 1 to " + std::to_string(kMaxPrompts));
  }
  for (size_t i = 0; i < (several ? prompt->size() : 1); ++i) {
    JobSpec one = spec;
    LS_ASSIGN_OR_RETURN(one.prompt, ParsePrompt(context, several ? (*prompt)[i] : *prompt));
    LS_RETURN_IF_ERROR(CheckLength(context, one.prompt.size(), one.sampling));
    request.specs.push_back(std::move(one));
  }
  return request;
}

/// OpenAI's older form: lists side by side. `offset`: characters of the answer before these tokens.
Json LogprobsJson(const Engine& engine, std::span<const AnswerDelta> tokens, size_t* offset) {
  Json texts = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const AnswerDelta& delta : tokens) {
    const auto text_of = [&](Token token) { return engine.Detokenize({&token, 1}, true); };
    const std::string text = text_of(delta.token);
    texts.push_back(text);
    values.push_back(delta.logprob->logprob);
    Json top = Json::object();
    for (const TokenLogprob& token : delta.top) {
      // Tokens that spell no whole character would fall together under U+FFFD.
      top[text_of(token.token)] = token.logprob;
    }
    tops.push_back(std::move(top));
    offsets.push_back(*offset);
    // In characters: bytes that go on with one do not count.
    *offset += static_cast<size_t>(std::ranges::count_if(text, [](char c) { return !IsUtf8Continuation(c); }));
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(values)},
          {"tokens", std::move(texts)},
          {"top_logprobs", std::move(tops)}};
}

Json Head(const std::string& id, int64_t created, const std::string& model) {
  return {{"id", id},
          {"object", "text_completion"},
          {"created", created},
          {"model", model},
          {"system_fingerprint", "loopserve"}};
}

class CompletionStream : public StreamFormat {
 public:
  CompletionStream(const Context& context, const GenerationRequest& request, int n_choices)
      : engine_(context.engine), request_(request), offsets_(static_cast<size_t>(n_choices), 0) {}

  void Delta(const AnswerDelta& delta, std::string* out) override {
    if (delta.text.empty() && !delta.logprob && !delta.ended) return;
    Json choice;
    choice["index"] = delta.choice;
    choice["text"] = delta.text;
    choice["logprobs"] = delta.logprob
                             ? LogprobsJson(*engine_, {&delta, 1}, &offsets_[static_cast<size_t>(delta.choice)])
                             : Json(nullptr);
    choice["finish_reason"] = delta.ended ? Json(FinishReason(delta.stats.stop_reason)) : Json(nullptr);
    AppendEvent(Chunk(Json::array({std::move(choice)})), out);
  }
  void Failed(const ApiError& error, std::string* out) override { AppendEvent(ToJson(error), out); }
  void Done(const Totals& totals, std::string* out) override {
    if (request_.include_usage) {
      Json chunk = Chunk(Json::array());
      chunk["usage"] = UsageJson(totals);
      chunk["timings"] = TimingsJson(totals);
      chunk["loopserve"] = SessionJson(totals);
      AppendEvent(chunk, out);
    }
    *out += "data: [DONE]\n\n";
  }

 private:
  Json Chunk(Json choices) const {
    Json chunk = Head(id_, created_, request_.model);
    chunk["choices"] = std::move(choices);
    return chunk;
  }

  const std::shared_ptr<Engine> engine_;
  const GenerationRequest request_;
  const std::string id_ = NewId("cmpl-");
  const int64_t created_ = UnixSeconds();
  std::vector<size_t> offsets_;
};

Json CompletionJson(const Context& context, const GenerationRequest& request, std::span<const ChoiceResult> choices,
                    const Totals& totals) {
  Json json = Head(NewId("cmpl-"), UnixSeconds(), request.model);
  Json list = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    size_t offset = 0;
    Json choice;
    choice["index"] = i;
    choice["text"] = choices[i].text;
    choice["logprobs"] =
        request.spec.top_logprobs >= 0 ? LogprobsJson(*context.engine, choices[i].tokens, &offset) : Json(nullptr);
    choice["finish_reason"] = FinishReason(choices[i].stats.stop_reason);
    list.push_back(std::move(choice));
  }
  json["choices"] = std::move(list);
  json["usage"] = UsageJson(totals);
  json["timings"] = TimingsJson(totals);
  json["loopserve"] = SessionJson(totals);
  return json;
}

HttpReply ServeCompletion(Context& context, const HttpRequest& http) {
  Result<CompletionRequest> request = ParseCompletion(context, http);
  if (!request.ok()) return ErrorReply(request.status());
  const GenerationRequest& generation = request->generation;
  return ServeGeneration(
      context, http, std::move(request->specs), generation.stream,
      {[&](int n) { return std::make_unique<CompletionStream>(context, generation, n); },
       [&](auto choices, const Totals& totals) { return CompletionJson(context, generation, choices, totals); },
       ErrorReply});
}

}  // namespace

void AddCompletionRoutes(Context& context, std::vector<Route>* routes) {
  routes->push_back(
      {"POST", "/v1/completions", [&context](const HttpRequest& http) { return ServeCompletion(context, http); }});
}

}  // namespace loopserve::server
