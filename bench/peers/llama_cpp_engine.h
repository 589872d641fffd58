// libllama as one row of the speed table. Thread rule: as MeasuredEngine.
#pragma once

#include <memory>

#include "bench/measured_engine.h"

namespace loopserve::bench {

/// spec.policy: "flash_attention" or "no_flash_attention"; the KV is f16. Errors: those of LlamaCppPeer::Open, and
/// kInvalidArgument for another policy or KV precision.
Result<std::unique_ptr<MeasuredEngine>> MakeLlamaCppEngine(const EngineSpec& spec);

}  // namespace loopserve::bench
