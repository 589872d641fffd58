// The clock that durations are measured by.
#pragma once

#include <chrono>

namespace loopserve {

using Clock = std::chrono::steady_clock;

inline double ToMilliseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

inline double MillisecondsSince(Clock::time_point start) { return ToMilliseconds(Clock::now() - start); }

}  // namespace loopserve
