#include <string>

#include "loopserve/engine.h"

namespace loopserve {

Result<LinearPath> ParseLinearPath(const std::string& name) {
  if (name == "auto") return LinearPath::kAuto;
  if (name == "quantized") return LinearPath::kQuantized;
  if (name == "f32") return LinearPath::kF32;
  if (name == "bf16") return LinearPath::kBf16;
  if (name == "int8") return LinearPath::kInt8;
  return Status(StatusCode::kInvalidArgument,
                "unknown linear path '" + name + "': use auto, quantized, f32, bf16 or int8");
}

Result<KvPrecision> ParseKvPrecision(const std::string& name) {
  if (name == "f16") return KvPrecision::kF16;
  if (name == "q8_0") return KvPrecision::kQ8_0;
  return Status(StatusCode::kInvalidArgument, "unknown KV precision '" + name + "': use f16 or q8_0");
}

}  // namespace loopserve
