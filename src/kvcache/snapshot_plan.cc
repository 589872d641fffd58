#include "src/kvcache/snapshot_plan.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace loopserve {
namespace {

/// Pieces of one block of tokens in a file: when a turn would add one more, they are written anew as one. Each is read
/// in runs of its rows, and short runs are slow.
constexpr int kMostPiecesOfBlock = 8;
RegionSource RowsSource(const KvCache& cache, int64_t first, int64_t n) {
  return {RegionKind::kKeysAndValues, static_cast<uint64_t>(first), static_cast<uint64_t>(n), cache.RowRuns(first, n)};
}

/// Pieces of rows [first, n_tokens), each within a block.
void PlanRows(const KvCache& cache, int64_t first, SnapshotPlan* plan) {
  const int64_t block = cache.layout().block_tokens;
  while (first < cache.n_tokens()) {
    const int64_t n = std::min(cache.n_tokens(), (first / block + 1) * block) - first;
    plan->push_back({{}, RowsSource(cache, first, n)});
    first += n;
  }
}

/// Rows that the old state has too, and then the others.
void PlanRowsAfter(const std::vector<Region>& old, const KvCache& cache, SnapshotPlan* plan) {
  const int64_t block = cache.layout().block_tokens;
  std::map<uint64_t, const Region*> pieces;
  for (const Region& region : old) {
    if (region.kind == RegionKind::kKeysAndValues) pieces.emplace(region.first, &region);
  }
  int64_t next = 0;
  int pieces_of_block = 0;
  for (auto it = pieces.find(0); it != pieces.end(); it = pieces.find(static_cast<uint64_t>(next))) {
    const Region& piece = *it->second;
    const int64_t in_block = block - next % block;
    if (piece.count < 1 || piece.count > static_cast<uint64_t>(std::min(in_block, cache.n_tokens() - next))) break;
    const RegionSource rows = RowsSource(cache, next, static_cast<int64_t>(piece.count));
    if (BytesOf(rows) != piece.bytes || HashOfParts(rows.parts) != piece.hash) break;
    plan->push_back({piece, std::nullopt});
    pieces_of_block = next % block == 0 ? 1 : pieces_of_block + 1;
    next += static_cast<int64_t>(piece.count);
  }
  const bool is_torn_block = next % block != 0 && next < cache.n_tokens();
  if (is_torn_block && pieces_of_block >= kMostPiecesOfBlock) {
    plan->resize(plan->size() - static_cast<size_t>(pieces_of_block));
    next = next / block * block;
  }
  PlanRows(cache, next, plan);
}

void PlanOthers(const std::vector<Region>& old, const SnapshotContent& content, SnapshotPlan* plan) {
  std::map<std::tuple<RegionKind, uint64_t, uint64_t>, const Region*> known;
  for (const Region& region : old) known.emplace(std::tuple(region.kind, region.first, region.count), &region);
  for (const RegionSource& source : content.regions) {
    const auto it = known.find({source.kind, source.first, source.count});
    const bool kept =
        it != known.end() && it->second->bytes == BytesOf(source) && it->second->hash == HashOfParts(source.parts);
    if (kept) {
      plan->push_back({*it->second, std::nullopt});
    } else {
      plan->push_back({{}, source});
    }
  }
}

}  // namespace

SnapshotPlan PlanSnapshot(const std::vector<Region>& old, const SnapshotContent& content) {
  SnapshotPlan plan;
  PlanRowsAfter(old, *content.cache, &plan);
  PlanOthers(old, content, &plan);
  return plan;
}

uint64_t BytesOf(const RegionSource& source) {
  uint64_t bytes = 0;
  for (const auto& part : source.parts) bytes += part.size();
  return bytes;
}

ContentHash HashOfParts(const std::vector<std::span<const std::byte>>& parts) {
  if (parts.size() == 1) return HashOf(parts[0]);
  ContentHasher hasher;
  for (const auto& part : parts) hasher.Update(part);
  return hasher.Finish();
}

uint64_t TableBytes(const SnapshotPlan& plan) { return plan.size() * kRegionEntryBytes; }

uint64_t BytesToWrite(const SnapshotPlan& plan) {
  uint64_t bytes = TableBytes(plan);
  for (const Planned& planned : plan) bytes += planned.source ? BytesOf(*planned.source) : 0;
  return bytes;
}

uint64_t LiveBytes(const SnapshotPlan& plan) {
  uint64_t bytes = kSlotsBytes + TableBytes(plan);
  for (const Planned& planned : plan) bytes += planned.source ? BytesOf(*planned.source) : planned.region.bytes;
  return bytes;
}

}  // namespace loopserve
