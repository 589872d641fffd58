#include "src/cli/model_options.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <sstream>
#include <utility>

#include "src/fetch/pull.h"

namespace loopserve {
namespace {

constexpr int64_t kMaxContextTokens = int64_t{1} << 31;

// What a path looks like when it does not exist: nobody means a model's name by it.
bool LooksLikePath(const std::string& model) {
  return model.ends_with(".gguf") || model.starts_with("/") || model.starts_with("./") || model.starts_with("../") ||
         model.starts_with("~");
}

}  // namespace

void AddModelNameOption(CLI::App& command, std::string* model) {
  command.add_option("-m,--model", *model, "model: a GGUF file, a name, hf:OWNER/REPO/FILE.gguf or a pulled URL")
      ->required();
}

void AddModelOptions(CLI::App& command, ModelOptions* options) {
  AddModelNameOption(command, &options->model);
  command.add_option("--threads", options->threads, "compute threads; 0: one for each physical core that it may use")
      ->check(CLI::Range(0, 512))
      ->capture_default_str();
  command.add_option("--context", options->context_tokens, "longest dialogue in tokens; 0: the model's own limit")
      ->check(CLI::Range(int64_t{0}, kMaxContextTokens))
      ->capture_default_str();
  command.add_option("--kv-type", options->kv_type, "how keys and values are kept: f16 or q8_0")
      ->check(CLI::IsMember({"f16", "q8_0"}))
      ->capture_default_str();
  command.add_option("--linear", options->linear, "prefill matrix products: auto, quantized, f32, bf16 or int8")
      ->check(CLI::IsMember({"auto", "quantized", "f32", "bf16", "int8"}))
      ->capture_default_str();
}

void AddPolicyOption(CLI::App& command, ModelOptions* options) {
  CLI::Option* policy =
      command.add_option("--policy", options->policy, "what is computed of the attention: NAME[:key=value,...]")
          ->capture_default_str();
  command
      .add_option("--quality", options->quality, "a preset instead: fast, balanced (the default policy) or faithful")
      ->check(CLI::IsMember({"fast", "balanced", "faithful"}))
      ->excludes(policy);
}

Result<Policy> ToPolicy(const ModelOptions& options) {
  return options.quality.empty() ? Policy::Parse(options.policy) : Policy::OfQuality(options.quality);
}

std::vector<std::string> SplitPolicies(const std::string& list) {
  std::vector<std::string> policies;
  std::istringstream pieces(list);
  for (std::string piece; std::getline(pieces, piece, ',');) {
    const bool continues = piece.find('=') != std::string::npos && piece.find(':') == std::string::npos;
    if (continues && !policies.empty()) {
      policies.back() += "," + piece;
    } else {
      policies.push_back(piece);
    }
  }
  return policies;
}

Result<std::vector<Policy>> ParsePolicies(const std::string& list) {
  std::vector<Policy> policies;
  for (const std::string& spec : SplitPolicies(list)) {
    LS_ASSIGN_OR_RETURN(Policy policy, Policy::Parse(spec));
    policies.push_back(std::move(policy));
  }
  return policies;
}

Result<std::string> ResolveModelPath(const std::string& model) {
  std::error_code error;
  const bool reference = model.starts_with("hf:") || model.find("://") != std::string::npos;
  if (!reference) {
    if (std::filesystem::is_directory(model, error)) {
      return Status(StatusCode::kNotFound, model + " is a folder; name the .gguf file in it");
    }
    if (std::filesystem::exists(model, error)) return model;
    if (LooksLikePath(model)) return Status(StatusCode::kNotFound, "no such model file: " + model);
  }
  return FindPulledModel(model);
}

Result<EngineOptions> ToEngineOptions(const ModelOptions& options) {
  EngineOptions engine;
  LS_ASSIGN_OR_RETURN(engine.model_path, ResolveModelPath(options.model));
  engine.threads = options.threads;
  engine.max_context_tokens = options.context_tokens;
  LS_ASSIGN_OR_RETURN(engine.kv_precision, ParseKvPrecision(options.kv_type));
  LS_ASSIGN_OR_RETURN(engine.linear_path, ParseLinearPath(options.linear));
  return engine;
}

Result<std::shared_ptr<Engine>> OpenEngine(const ModelOptions& options) {
  LS_ASSIGN_OR_RETURN(const EngineOptions engine_options, ToEngineOptions(options));
  Result<std::shared_ptr<Engine>> engine = Engine::Open(engine_options);
  if (engine.ok() || engine.status().message().find(engine_options.model_path) != std::string::npos) return engine;
  return engine.status().WithContext(engine_options.model_path);
}

}  // namespace loopserve
