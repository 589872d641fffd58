// Built where oneDNN is not.
#include "src/model/gemm_library.h"

namespace loopserve {

bool LibraryGemmIsAvailable(GemmMath) { return false; }

Result<std::unique_ptr<Gemm>> CreateLibraryGemm(GemmMath) {
  return Status(StatusCode::kUnsupported, "this build has no oneDNN");
}

}  // namespace loopserve
