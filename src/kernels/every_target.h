// Runs a test body once for each SIMD target that this build and this CPU have.
#pragma once

#include <cstdint>
#include <vector>

#include "src/kernels/simd_targets.h"
// After simd_targets.h.
#include "hwy/targets.h"

namespace loopserve {

template <class Body>
void ForEveryTarget(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().DeInit();
    body(hwy::TargetName(target));
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

}  // namespace loopserve
