#include "src/model/dialogue_snapshot.h"

#include <algorithm>
#include <map>
#include <new>
#include <string>
#include <utility>

#include "src/base/check.h"

namespace loopserve {
namespace {

Status Corrupt(const std::string& what) { return Status(StatusCode::kCorruptData, what); }

/// The pieces of rows [0, n_tokens), in order: each within a block and of the right size, none missing.
Result<std::vector<Region>> FindRows(const SnapshotReader& reader, const KvLayout& layout) {
  std::map<uint64_t, const Region*> pieces;
  for (const Region& region : reader.regions()) {
    if (region.kind == RegionKind::kKeysAndValues) pieces.emplace(region.first, &region);
  }
  const auto block = static_cast<uint64_t>(layout.block_tokens);
  std::vector<Region> rows;
  uint64_t next = 0;
  while (next < reader.header().n_tokens) {
    const auto it = pieces.find(next);
    if (it == pieces.end()) return Corrupt("the keys and values of token " + std::to_string(next) + " are missing");
    const Region& piece = *it->second;
    const uint64_t most = std::min(block - next % block, reader.header().n_tokens - next);
    if (piece.count < 1 || piece.count > most || piece.bytes != piece.count * layout.token_bytes())
      return Corrupt("the keys and values from token " + std::to_string(next) + " on have another size");
    rows.push_back(piece);
    next += piece.count;
  }
  return rows;
}

Status ReadRows(const SnapshotReader& reader, KvCache* cache) {
  LS_ASSIGN_OR_RETURN(const std::vector<Region> rows, FindRows(reader, cache->layout()));
  // The file has at least these tokens' bytes.
  const auto n_tokens = static_cast<int64_t>(reader.header().n_tokens);
  LS_RETURN_IF_ERROR(cache->ReserveTokens(n_tokens));
  for (const Region& piece : rows) {
    LS_RETURN_IF_ERROR(reader.ReadInto(
        piece, cache->ReservedRowRuns(static_cast<int64_t>(piece.first), static_cast<int64_t>(piece.count))));
  }
  cache->CommitTokens(n_tokens);
  return Status::Ok();
}

Status ReadQueries(const SnapshotReader& reader, Dialogue* dialogue) {
  LS_ASSIGN_OR_RETURN(const Region region, reader.Find(RegionKind::kQueries));
  LS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, reader.ReadBytes(region));
  if (dialogue->queries.Decode(bytes, dialogue->cache.n_tokens())) return Status::Ok();
  return Corrupt("the queries are not those of such a model and policy");
}

Status ReadCodedKeys(const SnapshotReader& reader, const HyperParams& params, Dialogue* dialogue) {
  for (int r = 0;; ++r) {
    const auto it = std::ranges::find_if(reader.regions(), [&](const Region& region) {
      return region.kind == RegionKind::kCodedKeys && region.first == static_cast<uint64_t>(r);
    });
    if (it == reader.regions().end()) return Status::Ok();
    const int64_t keys_before = dialogue->coded_keys.n_keys();
    if (it->count > CodedKeys::kRunGroups ||
        keys_before + static_cast<int64_t>(it->count) * kCodeGroupKeys > dialogue->cache.n_tokens())
      return Corrupt("there are more coded keys than tokens");
    LS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, reader.ReadBytes(*it));
    const Status status =
        dialogue->coded_keys.AppendRun(bytes, static_cast<int>(it->count), params, dialogue->cache.budget());
    if (!status.ok()) return status.WithContext("run " + std::to_string(r));
  }
}

}  // namespace

void SnapshotRegions::Add(RegionKind kind, std::span<const std::byte> bytes, uint64_t first, uint64_t count) {
  sources_.push_back({kind, first, count, {bytes}});
}

void SnapshotRegions::AddOwned(RegionKind kind, std::vector<std::byte> bytes, uint64_t first, uint64_t count) {
  owned_.push_back(std::move(bytes));
  Add(kind, owned_.back(), first, count);
}

void AddDialogueRegions(const Dialogue& dialogue, const HyperParams& params, SnapshotRegions* regions) {
  regions->AddOwned(RegionKind::kQueries, dialogue.queries.Encode());
  for (int r = 0; r < dialogue.coded_keys.n_runs(); ++r) {
    regions->AddOwned(RegionKind::kCodedKeys, dialogue.coded_keys.EncodeRun(r, params), static_cast<uint64_t>(r),
                      static_cast<uint64_t>(dialogue.coded_keys.n_groups(r)));
  }
}

Status ReadDialogue(const SnapshotReader& reader, const HyperParams& params, Dialogue* dialogue) {
  LS_CHECK(dialogue->cache.n_tokens() == 0);
  Status status;
  try {
    status = ReadRows(reader, &dialogue->cache);
    if (status.ok()) status = ReadQueries(reader, dialogue);
    if (status.ok()) status = ReadCodedKeys(reader, params, dialogue);
  } catch (const std::bad_alloc&) {
    status = Status(StatusCode::kResourceExhausted, "no memory for the stored dialogue");
  }
  if (!status.ok()) dialogue->Truncate(0);
  return status;
}

}  // namespace loopserve
