// The bytes of a stored dialogue: docs/snapshot_format.md describes them one by one. A file is two header slots, of
// which the newest valid one counts, and regions that a table names; nothing that a valid slot refers to is written
// again. Here are its parts and their checks; snapshot_reader.h and snapshot_writer.h are the files. Thread rule: pure
// functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "loopserve/status.h"
#include "src/base/content_hash.h"

namespace loopserve {

inline constexpr uint32_t kSnapshotVersion = 1;
inline constexpr size_t kSlotBytes = 4096;
inline constexpr size_t kSlotsBytes = 2 * kSlotBytes;
inline constexpr size_t kRegionEntryBytes = 56;
inline constexpr uint32_t kMaxRegions = 1 << 20;

/// What KV must have in common to be gone on with. By value: the model's and the tokenizer's bytes, how rows are stored
/// and by which arithmetic they were computed.
struct SnapshotKey {
  std::array<uint8_t, 32> model = {};
  std::array<uint8_t, 32> tokenizer = {};
  uint32_t kv_type = 0;      ///< KvType
  uint32_t linear_path = 0;  ///< LinearPath
  uint32_t arithmetic = 0;   ///< counts changes of the engine after which KV is no longer what it would compute
  uint32_t n_layers = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t n_heads = 0;
  uint32_t n_vocab = 0;
  uint32_t block_tokens = 0;

  friend bool operator==(const SnapshotKey&, const SnapshotKey&) = default;
};

struct SnapshotHeader {
  uint64_t generation = 0;    ///< saves of this file; slot generation % 2 has it
  uint64_t file_bytes = 0;    ///< what follows was never finished, or belongs to a later generation
  uint64_t table_offset = 0;  ///< of n_regions entries
  uint32_t n_regions = 0;
  bool pinned = false;
  ContentHash table_hash = {};
  uint64_t n_tokens = 0;
  int64_t saved_unix_ms = 0;
  SnapshotKey key;
  std::string engine_version;  ///< for people, up to 31 bytes
  std::string model_name;      ///< for people, up to 127 bytes
};

enum class RegionKind : uint32_t {
  kId = 1,
  kMetadata = 2,
  kPolicy = 3,
  kTokens = 4,
  kLogits = 5,
  kQueries = 6,
  kKeysAndValues = 7,  ///< first, count: tokens, all in one block
  kCodedKeys = 8,      ///< first: number of the run; count: its groups
};

struct Region {
  RegionKind kind = RegionKind::kId;
  uint64_t first = 0;
  uint64_t count = 0;
  uint64_t offset = 0;  ///< in the file
  uint64_t bytes = 0;
  ContentHash hash = {};
};

std::array<std::byte, kSlotBytes> EncodeSlot(const SnapshotHeader& header);
std::vector<std::byte> EncodeTable(std::span<const Region> regions);

/// The header that counts in a file's first kSlotsBytes: of two valid slots the one of the later generation.
/// Errors: kCorruptData (no session file, or no valid slot), kUnsupported (a later version of the format).
Result<SnapshotHeader> DecodeSlots(std::span<const std::byte> slots);

/// Whether the bytes begin like a snapshot, valid or not.
bool LooksLikeSnapshot(std::span<const std::byte> slots);

/// Checks the table of a file that has at least header.file_bytes bytes: every region lies within it, and all together
/// are no longer than it, so that whoever allocates for a region allocates less than the file has. kCorruptData.
Result<std::vector<Region>> DecodeTable(const SnapshotHeader& header, std::span<const std::byte> table);

/// Why a snapshot under `stored` cannot go on under `wanted`; empty if it can.
std::optional<std::string> KeyMismatch(const SnapshotKey& stored, const SnapshotKey& wanted);

}  // namespace loopserve
