// Our own engine as one row of the speed table. Thread rule: as MeasuredEngine.
#pragma once

#include <memory>

#include "bench/measured_engine.h"

namespace loopserve::bench {

/// spec.policy is a Policy specification. Errors: those of Engine::Open and Policy::Parse.
Result<std::unique_ptr<MeasuredEngine>> MakeOwnEngine(const EngineSpec& spec);

}  // namespace loopserve::bench
