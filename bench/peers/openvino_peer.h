// OpenVINO GenAI as rows of the speed table: its Python package in a helper process (openvino_peer.py, which is part of
// the program). `tools/setup bench-peers` installs the package.
#pragma once

#include <string>
#include <vector>

#include "loopserve/status.h"

namespace loopserve::bench {

/// The command that starts the helper, for WorkerProcess. python: an interpreter that has openvino_genai; empty:
/// $LOOPSERVE_OPENVINO_PYTHON, else the one that tools/setup made in the cache. kNotFound says how to get it.
Result<std::vector<std::string>> OpenVinoCommand(const std::string& python);

}  // namespace loopserve::bench
