// StreamingLLM (arXiv 2309.17453): attention sinks and the newest keys, whatever they weigh. Pure functions;
// candidates and choices are those of snapkv.h.
#pragma once

#include <cstdint>
#include <vector>

namespace loopserve {

/// Of n candidates the first `sinks` and the newest, `budget` together; all where there are not more. budget >= sinks.
std::vector<int32_t> ChooseStreaming(int64_t n, int64_t budget, int64_t sinks);

}  // namespace loopserve
