// An AttentionMap as a picture. Left the weight, right what the chosen lines compute: rows downwards, keys to the
// right. Above the left panel a tick for every chosen column, below it one where each chosen slash meets the last row.
// Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loopserve/inspect.h"
#include "loopserve/status.h"

namespace loopserve {

struct Picture {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;  ///< [height, width, 3]
};

/// The weight is coloured by its logarithm over four decades below the heaviest cell. head: whose lines are ticked.
/// Small maps are enlarged by a whole factor.
Picture DrawAttention(const AttentionMap& map, const HeadAttention& head);

/// The bytes of a PNG file. kResourceExhausted, kInternal.
Result<std::string> EncodePng(const Picture& picture);

}  // namespace loopserve
