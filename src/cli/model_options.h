// The options by which every command names and opens a model. Thread rule: main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/policy.h"
#include "loopserve/status.h"

namespace CLI {
class App;
}

namespace loopserve {

struct ModelOptions {
  std::string model;            ///< a path, a known name, hf:OWNER/REPO/FILE.gguf or a URL that was pulled
  int threads = 0;              ///< 0: one for each physical core that it may use
  int64_t context_tokens = 0;   ///< 0: the model's own
  std::string kv_type = "f16";  ///< f16 or q8_0
  std::string linear = "auto";  ///< auto, quantized, f32, bf16 or int8
  std::string policy = "loopserve";
  std::string quality;  ///< a preset of the policy; empty: as `policy` says
};

/// Adds -m alone, for commands that do not run the model. `model` must outlive the parsing, as `options` below.
void AddModelNameOption(CLI::App& command, std::string* model);
/// Adds -m, --threads, --context, --kv-type and --linear. `options` must outlive the parsing.
void AddModelOptions(CLI::App& command, ModelOptions* options);
/// Adds --policy and --quality.
void AddPolicyOption(CLI::App& command, ModelOptions* options);

/// The policy that --policy or --quality names; kInvalidArgument.
Result<Policy> ToPolicy(const ModelOptions& options);

/// "dense,other:a=1,b=2" is two policies: a piece that is only key=value belongs to the policy before it.
std::vector<std::string> SplitPolicies(const std::string& list);
/// The same, parsed; kInvalidArgument.
Result<std::vector<Policy>> ParsePolicies(const std::string& list);

/// The file that `model` means: an existing path as it is, else a model in the cache. kNotFound says how to pull it.
Result<std::string> ResolveModelPath(const std::string& model);

/// The engine's options for these; kInvalidArgument, kNotFound.
Result<EngineOptions> ToEngineOptions(const ModelOptions& options);

/// Opens the model. Errors: those of ToEngineOptions and Engine::Open, with the model's path put before the latter.
Result<std::shared_ptr<Engine>> OpenEngine(const ModelOptions& options);

}  // namespace loopserve
