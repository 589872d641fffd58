// What a save writes and what it keeps of the file that is there: pure functions of both.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "src/kvcache/snapshot_format.h"
#include "src/kvcache/snapshot_writer.h"

namespace loopserve {

/// A region of the new state, and where its bytes come from if the file does not have them.
struct Planned {
  Region region;
  std::optional<RegionSource> source;
};

using SnapshotPlan = std::vector<Planned>;

/// The regions of `content`: those that a file with regions `old` has already, by their checksums, stay where they are.
/// Old rows need not be those of this dialogue: whatever differs from some piece on is written.
SnapshotPlan PlanSnapshot(const std::vector<Region>& old, const SnapshotContent& content);

uint64_t BytesOf(const RegionSource& source);
ContentHash HashOfParts(const std::vector<std::span<const std::byte>>& parts);
uint64_t TableBytes(const SnapshotPlan& plan);
/// Regions without a place yet, and the table.
uint64_t BytesToWrite(const SnapshotPlan& plan);
/// Of a file that has what the plan says and nothing else.
uint64_t LiveBytes(const SnapshotPlan& plan);

}  // namespace loopserve
