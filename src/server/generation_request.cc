#include "src/server/generation_request.h"

#include <cmath>
#include <random>

#include "src/base/sha256.h"
#include "src/base/utf8.h"

namespace loopserve::server {
namespace {

constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxStops = 16;
constexpr int kMaxAnswers = 16;
constexpr int64_t kMaxTimeoutSeconds = 24 * 60 * 60;

Status TakeFloat(const Fields& fields, const char* name, float* target) {
  LS_ASSIGN_OR_RETURN(const std::optional<double> value, fields.Number(name));
  if (value) *target = static_cast<float>(*value);
  return Status::Ok();
}

Status TakeInt(const Fields& fields, const char* name, int64_t max, int32_t* target) {
  LS_ASSIGN_OR_RETURN(const std::optional<int64_t> value, fields.Int(name, 0, max));
  if (value) *target = static_cast<int32_t>(*value);
  return Status::Ok();
}

Status ParseStop(const Fields& fields, std::vector<std::string>* stop) {
  const JsonIn* value = fields.Find("stop");
  if (value == nullptr) return Status::Ok();
  stop->clear();
  if (value->is_string()) {
    stop->push_back(value->get<std::string>());
    return Status::Ok();
  }
  LS_ASSIGN_OR_RETURN(const JsonIn* list, fields.List("stop", kMaxStops));
  for (const JsonIn& item : *list) {
    if (!item.is_string()) return Status(StatusCode::kInvalidArgument, "stop must be a string or a list of strings");
    stop->push_back(item.get<std::string>());
  }
  return Status::Ok();
}

uint64_t RandomSeed() {
  thread_local std::mt19937_64 generator{(uint64_t{std::random_device{}()} << 32) | std::random_device{}()};
  return generator();
}

Status ParseSampling(const Fields& fields, std::optional<uint64_t> default_seed, SamplingParams* sampling) {
  LS_RETURN_IF_ERROR(TakeFloat(fields, "temperature", &sampling->temperature));
  LS_RETURN_IF_ERROR(TakeFloat(fields, "top_p", &sampling->top_p));
  LS_RETURN_IF_ERROR(TakeFloat(fields, "min_p", &sampling->min_p));
  LS_RETURN_IF_ERROR(TakeFloat(fields, "repeat_penalty", &sampling->repeat_penalty));
  LS_RETURN_IF_ERROR(TakeFloat(fields, "repetition_penalty", &sampling->repeat_penalty));
  LS_RETURN_IF_ERROR(TakeFloat(fields, "presence_penalty", &sampling->presence_penalty));
  LS_RETURN_IF_ERROR(TakeFloat(fields, "frequency_penalty", &sampling->frequency_penalty));
  LS_RETURN_IF_ERROR(TakeInt(fields, "repeat_last_n", 1 << 20, &sampling->penalty_window));
  LS_ASSIGN_OR_RETURN(const std::optional<int64_t> top_k, fields.Int("top_k", -1, INT32_MAX));
  if (top_k) sampling->top_k = static_cast<int32_t>(std::max<int64_t>(0, *top_k));  // -1: all, as others have it
  LS_ASSIGN_OR_RETURN(const std::optional<bool> ignore_eos, fields.Bool("ignore_eos"));
  if (ignore_eos) sampling->ignore_end_of_text = *ignore_eos;
  LS_ASSIGN_OR_RETURN(const std::optional<int64_t> seed, fields.Int("seed", INT64_MIN, INT64_MAX));
  if (seed && *seed != -1) {
    sampling->seed = static_cast<uint64_t>(*seed);
  } else {
    sampling->seed = !seed && default_seed ? *default_seed : RandomSeed();
  }
  LS_RETURN_IF_ERROR(ParseStop(fields, &sampling->stop));
  return sampling->Validate();
}

/// The first name that is given counts. A long one is hashed: it is kept for as long as the dialogue. So is one of a
/// header that is no text: names stand in JSON.
void SetName(const std::string& value, bool exclusive, SessionName* name) {
  if (value.empty() || !name->value.empty()) return;
  name->value = value.size() <= kMaxNameBytes && IsValidUtf8(value) ? value : "sha256:" + Sha256Hex(value);
  name->exclusive = exclusive;
}

Status ParseSessionName(const HttpRequest& http, const Fields& fields, SessionName* name) {
  LS_ASSIGN_OR_RETURN(const std::optional<std::string> session_id, fields.Text("session_id"));
  if (session_id) SetName(*session_id, true, name);
  const JsonIn* metadata = fields.Find("metadata");
  if (metadata != nullptr && metadata->is_object()) {
    LS_ASSIGN_OR_RETURN(const std::optional<std::string> id, Fields(*metadata, "metadata.").Text("session_id"));
    if (id) SetName(*id, true, name);
  }
  for (const char* header : {"X-Session-ID", "X-Conversation-Id", "X-SMG-Routing-Key"}) {
    // Headers are not checked as bodies are: anything may be in them.
    const std::string value = http.header(header);
    if (!value.empty()) SetName(value, true, name);
  }
  LS_ASSIGN_OR_RETURN(const std::optional<std::string> key, fields.Text("prompt_cache_key"));
  if (key) SetName(*key, false, name);
  return Status::Ok();
}

Status ParsePolicy(const Fields& fields, Policy* policy) {
  LS_ASSIGN_OR_RETURN(const std::optional<std::string> spec, fields.Text("policy"));
  LS_ASSIGN_OR_RETURN(const std::optional<std::string> quality, fields.Text("quality"));
  if (spec && quality) return Status(StatusCode::kInvalidArgument, "policy and quality cannot both be given");
  if (!spec && !quality) return Status::Ok();
  LS_ASSIGN_OR_RETURN(*policy, spec ? Policy::Parse(*spec) : Policy::OfQuality(*quality));
  return Status::Ok();
}

Status ParseStream(const Fields& fields, GenerationRequest* request) {
  LS_ASSIGN_OR_RETURN(const std::optional<bool> stream, fields.Bool("stream"));
  request->stream = stream.value_or(false);
  LS_ASSIGN_OR_RETURN(const std::optional<bool> progress, fields.Bool("return_progress"));
  request->return_progress = progress.value_or(false);
  LS_ASSIGN_OR_RETURN(const JsonIn* options, fields.Object("stream_options"));
  if (options == nullptr) return Status::Ok();
  LS_ASSIGN_OR_RETURN(const std::optional<bool> usage, Fields(*options, "stream_options.").Bool("include_usage"));
  request->include_usage = usage.value_or(false);
  return Status::Ok();
}

bool AsksForNothing(const JsonIn& value) {
  return value.is_null() || value == false || ((value.is_array() || value.is_object()) && value.empty());
}

}  // namespace

Result<GenerationRequest> ParseGeneration(const Context& context, const HttpRequest& http, const JsonIn& body) {
  const Fields fields(body);
  GenerationRequest request;
  JobSpec& spec = request.spec;
  spec.sampling = context.defaults.sampling;
  spec.policy = context.defaults.policy;
  spec.timeout = context.default_timeout;
  LS_ASSIGN_OR_RETURN(const std::optional<std::string> model, fields.Text("model", kMaxNameBytes));
  request.model = model.value_or(context.model_id);
  LS_RETURN_IF_ERROR(ParseStream(fields, &request));
  LS_RETURN_IF_ERROR(ParseSampling(fields, context.defaults.seed, &spec.sampling));
  LS_RETURN_IF_ERROR(ParsePolicy(fields, &spec.policy));
  LS_RETURN_IF_ERROR(ParseSessionName(http, fields, &spec.name));
  LS_ASSIGN_OR_RETURN(const std::optional<int64_t> n, fields.Int("n", 1, kMaxAnswers));
  spec.n = static_cast<int>(n.value_or(1));
  LS_ASSIGN_OR_RETURN(const std::optional<int64_t> priority, fields.Int("priority", -1000, 1000));
  spec.priority = static_cast<int>(priority.value_or(0));
  LS_ASSIGN_OR_RETURN(const std::optional<double> timeout, fields.Number("timeout"));
  if (timeout) {
    if (!(*timeout > 0 && *timeout <= kMaxTimeoutSeconds)) {
      return Status(StatusCode::kInvalidArgument, "timeout must be above 0 and at most 86400 seconds");
    }
    spec.timeout = std::chrono::milliseconds(std::max<int64_t>(1, std::llround(*timeout * 1000)));
  }
  LS_ASSIGN_OR_RETURN(const std::optional<bool> measure, fields.Bool("measure_quality"));
  spec.measure_quality = measure.value_or(false);
  LS_ASSIGN_OR_RETURN(const std::optional<std::string> salt, fields.Text("cache_salt"));
  spec.name_space = {http.tenant, salt && !salt->empty() ? Sha256Hex(*salt) : ""};
  return request;
}

Status ParseMaxTokens(const JsonIn& body, const std::vector<std::string>& names, SamplingParams* sampling) {
  const Fields fields(body);
  std::string given_by;
  for (const std::string& name : names) {
    LS_ASSIGN_OR_RETURN(const std::optional<int64_t> value, fields.Int(name, -1, INT32_MAX));
    if (!value) continue;
    if (*value == 0) return Status(StatusCode::kInvalidArgument, name + " must be at least 1");
    if (!given_by.empty() && *value != sampling->max_tokens) {
      return Status(StatusCode::kInvalidArgument, given_by + " and " + name + " differ");
    }
    sampling->max_tokens = static_cast<int32_t>(*value);
    given_by = name;
  }
  return Status::Ok();
}

Status RefuseFields(const JsonIn& body, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto found = body.find(name);
    if (found == body.end() || AsksForNothing(*found)) continue;
    return Status(StatusCode::kUnsupported, name + " is not supported");
  }
  return Status::Ok();
}

Status CheckLength(const Context& context, size_t prompt_tokens, const SamplingParams& sampling) {
  const int64_t limit = context.engine->model().context_tokens;
  const auto prompt = static_cast<int64_t>(prompt_tokens);
  const int64_t answer = std::max(0, sampling.max_tokens);
  if (prompt + answer <= limit) return Status::Ok();
  std::string message = "the model's context holds " + std::to_string(limit) + " tokens, but the request needs " +
                        std::to_string(prompt + answer) + ": " + std::to_string(prompt) + " in the prompt";
  if (answer > 0) message += " and " + std::to_string(answer) + " in the answer";
  return Status(StatusCode::kContextLength, message);
}

}  // namespace loopserve::server
