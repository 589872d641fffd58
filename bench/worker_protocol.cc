#include "bench/worker_protocol.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

namespace loopserve::bench {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::pair<StatusCode, const char*>, 8> kCodes = {{
    {StatusCode::kInvalidArgument, "invalid_argument"},
    {StatusCode::kNotFound, "not_found"},
    {StatusCode::kUnsupported, "unsupported"},
    {StatusCode::kCorruptData, "corrupt_data"},
    {StatusCode::kContextLength, "context_length"},
    {StatusCode::kResourceExhausted, "resource_exhausted"},
    {StatusCode::kIoError, "io_error"},
    {StatusCode::kInternal, "internal"},
}};

/// The optional figures and the names they have on the wire.
constexpr std::array<std::pair<const char*, std::optional<double> RunFigures::*>, 18> kOptionalFigures = {{
    {"tpot_ms", &RunFigures::tpot_ms},
    {"itl_max_over_median", &RunFigures::itl_max_over_median},
    {"linear_ms", &RunFigures::linear_ms},
    {"attention_ms", &RunFigures::attention_ms},
    {"selection_ms", &RunFigures::selection_ms},
    {"prefill_density", &RunFigures::prefill_density},
    {"coverage_heldout", &RunFigures::coverage_heldout},
    {"output_error", &RunFigures::output_error},
    {"output_error_p90", &RunFigures::output_error_p90},
    {"floor_density", &RunFigures::floor_density},
    {"floor_error", &RunFigures::floor_error},
    {"decode_linear_ms", &RunFigures::decode_linear_ms},
    {"decode_attention_ms", &RunFigures::decode_attention_ms},
    {"decode_selection_ms", &RunFigures::decode_selection_ms},
    {"decode_coverage", &RunFigures::decode_coverage},
    {"decode_coverage_p10", &RunFigures::decode_coverage_p10},
    {"decode_kv_fraction", &RunFigures::decode_kv_fraction},
    {"peak_rss_bytes", &RunFigures::peak_rss_bytes},
}};

constexpr std::array<std::pair<WorkerRequest::Operation, const char*>, 3> kOperations = {{
    {WorkerRequest::Operation::kLoad, "load"},
    {WorkerRequest::Operation::kPrepare, "prepare"},
    {WorkerRequest::Operation::kRun, "run"},
}};

Result<Json> ParseReply(std::string_view line) {
  Json reply = Json::parse(line, nullptr, false);
  if (!reply.is_object() || !reply.contains("ok") || !reply["ok"].is_boolean()) {
    return Status(StatusCode::kCorruptData, "a helper process answered nonsense: " + std::string(line.substr(0, 200)));
  }
  if (reply["ok"].get<bool>()) return reply;
  const std::string code = reply.value("code", "internal");
  for (const auto& [status_code, name] : kCodes) {
    if (code == name) return Status(status_code, reply.value("error", "no reason given"));
  }
  return Status(StatusCode::kInternal, reply.value("error", "no reason given"));
}

}  // namespace

std::string EncodeRequest(const WorkerRequest& request) {
  Json json;
  for (const auto& [operation, name] : kOperations) {
    if (operation == request.operation) json["op"] = name;
  }
  switch (request.operation) {
    case WorkerRequest::Operation::kLoad:
      json["engine"] = request.spec.engine;
      json["policy"] = request.spec.policy;
      json["model"] = request.spec.model_path;
      json["threads"] = request.spec.threads;
      json["max_tokens"] = request.spec.max_tokens;
      json["kv"] = request.spec.kv;
      json["linear_path"] = request.spec.linear_path;
      break;
    case WorkerRequest::Operation::kPrepare:
      json["context"] = request.tokens;
      break;
    case WorkerRequest::Operation::kRun:
      json["prompt"] = request.tokens;
      json["gen_tokens"] = request.gen_tokens;
      break;
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<WorkerRequest> DecodeRequest(std::string_view line) {
  try {
    const Json json = Json::parse(line);
    WorkerRequest request;
    const auto op = json.at("op").get<std::string>();
    bool known = false;
    for (const auto& [operation, name] : kOperations) {
      if (op != name) continue;
      request.operation = operation;
      known = true;
    }
    if (!known) return Status(StatusCode::kInvalidArgument, "unknown operation '" + op + "'");
    switch (request.operation) {
      case WorkerRequest::Operation::kLoad:
        json.at("engine").get_to(request.spec.engine);
        json.at("policy").get_to(request.spec.policy);
        json.at("model").get_to(request.spec.model_path);
        json.at("threads").get_to(request.spec.threads);
        json.at("max_tokens").get_to(request.spec.max_tokens);
        json.at("kv").get_to(request.spec.kv);
        json.at("linear_path").get_to(request.spec.linear_path);
        break;
      case WorkerRequest::Operation::kPrepare:
        json.at("context").get_to(request.tokens);
        break;
      case WorkerRequest::Operation::kRun:
        json.at("prompt").get_to(request.tokens);
        json.at("gen_tokens").get_to(request.gen_tokens);
        break;
    }
    return request;
  } catch (const Json::exception& e) {
    return Status(StatusCode::kInvalidArgument, std::string("not a request: ") + e.what());
  }
}

std::string EncodeReply(const Status& status) {
  Json json{{"ok", status.ok()}};
  if (!status.ok()) {
    json["code"] = "internal";
    for (const auto& [code, name] : kCodes) {
      if (code == status.code()) json["code"] = name;
    }
    json["error"] = status.message();
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string EncodeReply(const RunFigures& figures) {
  Json json{{"ok", true}, {"ttft_ms", figures.ttft_ms}, {"output", figures.output}};
  for (const auto& [name, member] : kOptionalFigures) {
    if (figures.*member) json[name] = *(figures.*member);
  }
  return json.dump();
}

Status DecodeReply(std::string_view line) { return ParseReply(line).status(); }

Result<RunFigures> DecodeRunReply(std::string_view line) {
  LS_ASSIGN_OR_RETURN(const Json json, ParseReply(line));
  try {
    RunFigures figures;
    json.at("ttft_ms").get_to(figures.ttft_ms);
    json.at("output").get_to(figures.output);
    for (const auto& [name, member] : kOptionalFigures) {
      if (json.contains(name) && !json[name].is_null()) figures.*member = json[name].get<double>();
    }
    return figures;
  } catch (const Json::exception& e) {
    return Status(StatusCode::kCorruptData, std::string("a helper process answered nonsense: ") + e.what());
  }
}

}  // namespace loopserve::bench
