// What the methods of blocks have in common: rows and keys in blocks of the same size at absolute positions, a choice
// of key blocks for each block of rows, computed as tiles of 16 keys. Thread rule: as prefill_methods.h.
#pragma once

#include <cstdint>
#include <functional>

#include "src/model/prefill_layer.h"

namespace loopserve {

/// Rows that the kernel computes together: blocks are cut into as many parts as it takes.
inline constexpr int64_t kBlockPartRows = 64;

struct BlockMethod {
  int64_t block_tokens = 0;     ///< rows and keys of a block; a multiple of kBlockPartRows
  int64_t n_deciding_rows = 0;  ///< last rows of the turn whose own weights decided: they are not held out
  /// Ascending key blocks for row block `block` of a head, the own among them, into state.blocks.
  std::function<void(int head, int64_t block, PrefillThread& state)> choose;
};

/// Chooses and attends for all blocks of the layer, and measures.
Status AttendBlocks(const PrefillLayer& layer, const BlockMethod& method);

}  // namespace loopserve
