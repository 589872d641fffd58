// The clock that durations are measured by.
#pragma once

#include <chrono>

namespace loopserve {

using Clock = std::chrono::steady_clock;

inline double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

}  // namespace loopserve
