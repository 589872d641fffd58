// How much memory this process has used at most. Thread rule: thread-safe.
#pragma once

#include <cstddef>
#include <optional>

namespace loopserve::bench {

/// Forgets the peak so far, where the system can (Linux): the next PeakRssBytes counts from what is in use now.
void ResetPeakRss();
/// The most resident memory since the start or the last reset, in bytes; empty where the system does not say.
std::optional<double> PeakRssBytes();

}  // namespace loopserve::bench
