#include "bench/peers/openvino_peer.h"

#include <cstdlib>
#include <filesystem>

#include "bench/peers/openvino_peer_script.h"
#include "src/base/paths.h"

namespace loopserve::bench {

Result<std::vector<std::string>> OpenVinoCommand(const std::string& python) {
  std::filesystem::path interpreter = python;
  if (const char* variable = std::getenv("LOOPSERVE_OPENVINO_PYTHON"); interpreter.empty() && variable != nullptr) {
    interpreter = variable;
  }
  if (interpreter.empty()) {
    LS_ASSIGN_OR_RETURN(const std::filesystem::path cache, CacheDir());
    interpreter = cache / "openvino" / "bin" / "python";
  }
  std::error_code error;
  if (!std::filesystem::exists(interpreter, error)) {
    return Status(StatusCode::kNotFound, "OpenVINO GenAI is not set up (no " + interpreter.string() +
                                             "): run tools/setup bench-peers, or name an interpreter that has it");
  }
  return std::vector<std::string>{interpreter.string(), "-c", kOpenVinoPeerScript};
}

}  // namespace loopserve::bench
