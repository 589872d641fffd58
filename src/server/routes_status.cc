// What the server says of itself: /health, /v1/models, /props, /metrics.
#include "src/server/api_error.h"
#include "src/server/json_reader.h"
#include "src/server/routes.h"

namespace loopserve::server {
namespace {

HttpReply Health(const Context& context) {
  if (context.stopping) return ErrorReply(NotReadyError("the server is going down"));
  if (!context.ready) return ErrorReply(NotReadyError("the model is being loaded"));
  return JsonReply({{"status", "ok"}});
}

Json ModelJson(const Context& context) {
  const ModelInfo& model = context.engine->model();
  Json json;
  json["id"] = context.model_id;
  json["object"] = "model";
  json["created"] = context.created_s;
  json["owned_by"] = "loopserve";
  json["max_model_len"] = model.context_tokens;
  json["meta"] = {{"family", model.family},    {"description", model.description},
                  {"n_vocab", model.n_vocab},  {"n_ctx", model.context_tokens},
                  {"n_layer", model.n_layers}, {"n_params", model.n_parameters},
                  {"size", model.file_bytes},  {"kv_bytes_per_token", model.kv_bytes_per_token}};
  return json;
}

HttpReply Models(const Context& context) {
  return JsonReply({{"object", "list"}, {"data", Json::array({ModelJson(context)})}});
}

HttpReply Model(const Context& context, const std::string& id) {
  if (id != context.model_id) return ErrorReply(Status(StatusCode::kNotFound, "there is no model '" + id + "'"));
  return JsonReply(ModelJson(context));
}

HttpReply Props(const Context& context) {
  const SamplingParams& sampling = context.defaults.sampling;
  const ModelInfo& model = context.engine->model();
  Json settings;
  settings["n_ctx"] = model.context_tokens;
  settings["params"] = {{"temperature", sampling.temperature},
                        {"top_k", sampling.top_k},
                        {"top_p", sampling.top_p},
                        {"min_p", sampling.min_p},
                        {"n_predict", sampling.max_tokens},
                        {"policy", context.defaults.policy.ToString()}};
  Json json;
  json["default_generation_settings"] = std::move(settings);
  json["model_alias"] = context.model_id;
  json["has_chat_template"] = model.has_chat_template;
  json["kv_used_bytes"] = context.engine->kv_used_bytes();
  json["requests_running"] = context.scheduler->n_running();
  json["requests_waiting"] = context.scheduler->n_waiting();
  return JsonReply(json);
}

HttpReply MetricsText(const Context& context) {
  HttpReply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = context.metrics.ToText();
  return reply;
}

}  // namespace

void AddStatusRoutes(Context& context, std::vector<Route>* routes) {
  const auto add = [&](const char* path, HttpReply (*serve)(const Context&), bool is_public) {
    routes->push_back({"GET", path, [&context, serve](const HttpRequest&) { return serve(context); }, is_public});
  };
  add("/health", Health, true);
  add("/v1/models", Models, false);
  add("/props", Props, false);
  add("/metrics", MetricsText, false);
  routes->push_back({"GET", "/v1/models/:id",
                     [&context](const HttpRequest& http) { return Model(context, http.path_params.at("id")); }});
}

}  // namespace loopserve::server
