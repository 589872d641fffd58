// Built where oneDNN is not: every product then goes through ggml's quantised kernels.
#include "src/base/check.h"
#include "src/model/gemm.h"

namespace loopserve {

struct Gemm::State {};

bool Gemm::IsAvailable(GemmMath) { return false; }
Gemm::Gemm(GemmMath math) : math_(math) {}
Gemm::~Gemm() = default;
Result<std::unique_ptr<Gemm>> Gemm::Create(GemmMath) {
  return Status(StatusCode::kUnsupported, "this build has no oneDNN: only the quantised path is there");
}
// Without an object nothing below can be called.
size_t Gemm::PackedBytes(int64_t, int64_t) const { LS_CHECK(false); }
void Gemm::PackColumns(const float*, int64_t, int64_t, int64_t, int64_t, std::byte*) const { LS_CHECK(false); }
size_t Gemm::ScratchBytes(int64_t, int64_t) const { LS_CHECK(false); }
void Gemm::Prepare(const float*, int64_t, std::byte*) const { LS_CHECK(false); }
void Gemm::Multiply(const std::byte*, int64_t, int64_t, const float*, int64_t, int64_t, const float*, float*,
                    std::byte*) const {
  LS_CHECK(false);
}
void Gemm::MultiplyPrepared(const std::byte*, int64_t, int64_t, const std::byte*, int64_t, const float*, float*,
                            std::byte*) const {
  LS_CHECK(false);
}

}  // namespace loopserve
