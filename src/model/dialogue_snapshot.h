// A dialogue's part of a snapshot: what decoding chooses by, as regions, and all of it back from a file. The rows of
// keys and values are written by kvcache/snapshot_writer.h itself.
// Thread rule: pure functions of their arguments; a dialogue that is saved must not change meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string_view>
#include <vector>

#include "loopserve/status.h"
#include "src/kvcache/snapshot_reader.h"
#include "src/kvcache/snapshot_writer.h"
#include "src/model/dialogue.h"
#include "src/model/hyper_params.h"

namespace loopserve {

/// Regions, and the memory of those that were made for the snapshot.
class SnapshotRegions {
 public:
  void Add(RegionKind kind, std::span<const std::byte> bytes, uint64_t first = 0, uint64_t count = 0);
  void AddOwned(RegionKind kind, std::vector<std::byte> bytes, uint64_t first = 0, uint64_t count = 0);
  std::vector<RegionSource>& sources() { return sources_; }

 private:
  std::deque<std::vector<std::byte>> owned_;  // keeps its elements in place
  std::vector<RegionSource> sources_;
};

/// Adds the newest queries and the coded keys.
void AddDialogueRegions(const Dialogue& dialogue, const HyperParams& params, SnapshotRegions* regions);

/// Fills an empty dialogue whose policy and layout are those of the file. kCorruptData, kResourceExhausted (the KV
/// budget: asked for before anything is read) and kIoError leave it empty.
Status ReadDialogue(const SnapshotReader& reader, const HyperParams& params, Dialogue* dialogue);

}  // namespace loopserve
