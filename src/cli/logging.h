// The library's log messages on stderr, through spdlog. Thread rule: call from the main thread, once.
#pragma once

#include <string>

namespace loopserve {

/// level: trace, debug, info, warn, error or off.
void InstallLogSink(const std::string& level);

}  // namespace loopserve
