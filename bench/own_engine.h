// Our own engine as one row of the speed table. Thread rule: as MeasuredEngine.
#pragma once

#include <memory>

#include "bench/measured_engine.h"

namespace loopserve::bench {

/// "auto" | "quantized" | "f32" | "bf16"; kInvalidArgument otherwise.
Result<LinearPath> ParseLinearPath(const std::string& name);
/// "" (the default) | "f16" | "q8_0"; kInvalidArgument otherwise.
Result<KvPrecision> ParseKvPrecision(const std::string& name);

/// spec.policy is a Policy specification. Errors: those of Engine::Open and Policy::Parse.
Result<std::unique_ptr<MeasuredEngine>> MakeOwnEngine(const EngineSpec& spec);

}  // namespace loopserve::bench
