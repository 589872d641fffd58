// What each KV head of a layer keeps when a dialogue is compressed: gives the layer to the method that the policy
// wants. Pure functions; candidates, weights and choices are those of snapkv.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "loopserve/policy.h"

namespace loopserve {

/// A layer whose KV heads are to be compressed.
struct EvictionLayer {
  int index = 0;         ///< among the layers that are compressed
  int n_layers = 0;      ///< that are compressed
  int64_t n_tokens = 0;  ///< of the context, whether held or not
  int64_t window = 0;    ///< newest candidates that observe; at most the settings' window
  /// Of the candidates of every KV head; of no meaning where the method weighs nothing.
  std::span<const std::vector<float>> weights;
};

/// Whether the method needs weights of the newest rows, and whether of all rows of the prefill.
bool ObservesWindow(const EvictionSettings& settings);
bool SumsColumns(const EvictionSettings& settings);

/// Ascending indices of each head's candidates.
std::vector<std::vector<int32_t>> ChooseKept(const EvictionSettings& settings, const EvictionLayer& layer);

}  // namespace loopserve
