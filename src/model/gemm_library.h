// oneDNN's products as a Gemm, where it is built in (gemm_onednn.cc; gemm_none.cc where it is not).
#pragma once

#include <memory>

#include "loopserve/status.h"
#include "src/model/gemm.h"

namespace loopserve {

/// Whether it is there and multiplies so on this CPU.
bool LibraryGemmIsAvailable(GemmMath math);
/// kInternal if oneDNN fails.
Result<std::unique_ptr<Gemm>> CreateLibraryGemm(GemmMath math);

}  // namespace loopserve
