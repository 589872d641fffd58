#include "src/kvcache/snapshot_format.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

namespace loopserve {
namespace {

static_assert(std::endian::native == std::endian::little, "snapshots are read and written without swapping bytes");

constexpr char kMagic[8] = {'L', 'S', 'S', 'N', 'A', 'P', '\r', '\n'};
constexpr uint32_t kFlagPinned = 1;
constexpr size_t kSlotHashOffset = kSlotBytes - sizeof(ContentHash);

/// A slot's first bytes. Every member lies where docs/snapshot_format.md says.
struct SlotFields {
  char magic[8];
  uint32_t version;
  uint32_t slot_bytes;
  uint64_t generation;
  uint64_t file_bytes;
  uint64_t table_offset;
  uint32_t n_regions;
  uint32_t flags;
  uint8_t table_hash[16];
  uint64_t n_tokens;
  int64_t saved_unix_ms;
  uint8_t model[32];
  uint8_t tokenizer[32];
  uint32_t kv_type, linear_path, arithmetic;
  uint32_t n_layers, n_kv_heads, head_dim, n_heads, n_vocab, block_tokens;
  uint32_t reserved;
  char engine_version[32];
  char model_name[128];
};
static_assert(sizeof(SlotFields) == 344 && alignof(SlotFields) == 8);
static_assert(offsetof(SlotFields, model) == 80 && offsetof(SlotFields, kv_type) == 144 &&
              offsetof(SlotFields, engine_version) == 184);

struct EntryFields {
  uint32_t kind;
  uint32_t reserved;
  uint64_t first, count, offset, bytes;
  uint8_t hash[16];
};
static_assert(sizeof(EntryFields) == kRegionEntryBytes);

template <size_t n>
void PutText(const std::string& text, char (&target)[n]) {
  std::memcpy(target, text.data(), std::min(text.size(), n - 1));
}

template <size_t n>
std::string GetText(const char (&source)[n]) {
  return std::string(source, strnlen(source, n));
}

enum class SlotState { kEmpty, kForeign, kDamaged, kNewer, kValid };

/// No file is saved so often: a generation beyond it would not be followed by a later one.
constexpr uint64_t kMaxGeneration = uint64_t{1} << 62;

/// The slot at `index` of a file.
SlotState DecodeSlot(std::span<const std::byte> slot, uint64_t index, SnapshotHeader* header, uint32_t* version) {
  if (std::ranges::all_of(slot, [](std::byte b) { return b == std::byte{0}; })) return SlotState::kEmpty;
  SlotFields fields;
  std::memcpy(&fields, slot.data(), sizeof(fields));
  if (std::memcmp(fields.magic, kMagic, sizeof(kMagic)) != 0) return SlotState::kForeign;
  const ContentHash hash = HashOf(slot.first(kSlotHashOffset));
  if (std::memcmp(hash.data(), slot.data() + kSlotHashOffset, hash.size()) != 0) return SlotState::kDamaged;
  header->generation = fields.generation;
  *version = fields.version;
  if (fields.version > kSnapshotVersion) return SlotState::kNewer;
  if (fields.version != kSnapshotVersion || fields.slot_bytes != kSlotBytes) return SlotState::kDamaged;
  // The next save writes the other slot; were this one not where it belongs, that would be the only valid one.
  if (fields.generation % 2 != index || fields.generation > kMaxGeneration) return SlotState::kDamaged;
  // Were anything said to lie within the slots, the next save would write over them.
  if (fields.file_bytes < kSlotsBytes || fields.table_offset < kSlotsBytes) return SlotState::kDamaged;
  header->file_bytes = fields.file_bytes;
  header->table_offset = fields.table_offset;
  header->n_regions = fields.n_regions;
  header->pinned = (fields.flags & kFlagPinned) != 0;
  std::memcpy(header->table_hash.data(), fields.table_hash, sizeof(fields.table_hash));
  header->n_tokens = fields.n_tokens;
  header->saved_unix_ms = fields.saved_unix_ms;
  SnapshotKey& key = header->key;
  std::memcpy(key.model.data(), fields.model, sizeof(fields.model));
  std::memcpy(key.tokenizer.data(), fields.tokenizer, sizeof(fields.tokenizer));
  key.kv_type = fields.kv_type;
  key.linear_path = fields.linear_path;
  key.arithmetic = fields.arithmetic;
  key.n_layers = fields.n_layers;
  key.n_kv_heads = fields.n_kv_heads;
  key.head_dim = fields.head_dim;
  key.n_heads = fields.n_heads;
  key.n_vocab = fields.n_vocab;
  key.block_tokens = fields.block_tokens;
  header->engine_version = GetText(fields.engine_version);
  header->model_name = GetText(fields.model_name);
  return SlotState::kValid;
}

Status Corrupt(const std::string& what) { return Status(StatusCode::kCorruptData, what); }

}  // namespace

std::array<std::byte, kSlotBytes> EncodeSlot(const SnapshotHeader& header) {
  SlotFields fields = {};
  std::memcpy(fields.magic, kMagic, sizeof(kMagic));
  fields.version = kSnapshotVersion;
  fields.slot_bytes = kSlotBytes;
  fields.generation = header.generation;
  fields.file_bytes = header.file_bytes;
  fields.table_offset = header.table_offset;
  fields.n_regions = header.n_regions;
  fields.flags = header.pinned ? kFlagPinned : 0;
  std::memcpy(fields.table_hash, header.table_hash.data(), sizeof(fields.table_hash));
  fields.n_tokens = header.n_tokens;
  fields.saved_unix_ms = header.saved_unix_ms;
  const SnapshotKey& key = header.key;
  std::memcpy(fields.model, key.model.data(), sizeof(fields.model));
  std::memcpy(fields.tokenizer, key.tokenizer.data(), sizeof(fields.tokenizer));
  fields.kv_type = key.kv_type;
  fields.linear_path = key.linear_path;
  fields.arithmetic = key.arithmetic;
  fields.n_layers = key.n_layers;
  fields.n_kv_heads = key.n_kv_heads;
  fields.head_dim = key.head_dim;
  fields.n_heads = key.n_heads;
  fields.n_vocab = key.n_vocab;
  fields.block_tokens = key.block_tokens;
  PutText(header.engine_version, fields.engine_version);
  PutText(header.model_name, fields.model_name);
  std::array<std::byte, kSlotBytes> slot = {};
  std::memcpy(slot.data(), &fields, sizeof(fields));
  const ContentHash hash = HashOf(std::span(slot).first(kSlotHashOffset));
  std::memcpy(slot.data() + kSlotHashOffset, hash.data(), hash.size());
  return slot;
}

std::vector<std::byte> EncodeTable(std::span<const Region> regions) {
  std::vector<std::byte> table(regions.size() * kRegionEntryBytes);
  for (size_t i = 0; i < regions.size(); ++i) {
    const Region& region = regions[i];
    EntryFields fields = {
        static_cast<uint32_t>(region.kind), 0, region.first, region.count, region.offset, region.bytes, {}};
    std::memcpy(fields.hash, region.hash.data(), sizeof(fields.hash));
    std::memcpy(table.data() + i * kRegionEntryBytes, &fields, sizeof(fields));
  }
  return table;
}

bool LooksLikeSnapshot(std::span<const std::byte> slots) {
  for (size_t offset = 0; offset < kSlotsBytes; offset += kSlotBytes) {
    if (slots.size() >= offset + sizeof(kMagic) && std::memcmp(slots.data() + offset, kMagic, sizeof(kMagic)) == 0)
      return true;
  }
  return false;
}

Result<SnapshotHeader> DecodeSlots(std::span<const std::byte> slots) {
  if (!LooksLikeSnapshot(slots)) return Corrupt("this is no session file");
  if (slots.size() < kSlotsBytes) return Corrupt("the file ends in its header");
  std::optional<SnapshotHeader> best;
  bool best_is_newer = false;
  uint32_t newer_version = 0;
  for (size_t index = 0; index < 2; ++index) {
    SnapshotHeader header;
    uint32_t version = 0;
    const SlotState state = DecodeSlot(slots.subspan(index * kSlotBytes, kSlotBytes), index, &header, &version);
    if (state != SlotState::kValid && state != SlotState::kNewer) continue;
    if (best && best->generation > header.generation) continue;
    best = header;
    best_is_newer = state == SlotState::kNewer;
    newer_version = version;
  }
  if (!best) return Corrupt("the header is damaged: neither slot has its checksum");
  if (best_is_newer) {
    return Status(StatusCode::kUnsupported, "the file was written by a later version: format " +
                                                std::to_string(newer_version) + ", and this one reads format " +
                                                std::to_string(kSnapshotVersion));
  }
  return *best;
}

Result<std::vector<Region>> DecodeTable(const SnapshotHeader& header, std::span<const std::byte> table) {
  if (table.size() != size_t{header.n_regions} * kRegionEntryBytes || HashOf(table) != header.table_hash)
    return Corrupt("the table of regions is damaged");
  std::vector<Region> regions;
  regions.reserve(header.n_regions);
  uint64_t total = 0;
  for (uint32_t i = 0; i < header.n_regions; ++i) {
    EntryFields fields;
    std::memcpy(&fields, table.data() + i * kRegionEntryBytes, sizeof(fields));
    const bool inside = fields.offset >= kSlotsBytes && fields.offset <= header.file_bytes &&
                        fields.bytes <= header.file_bytes - fields.offset;
    if (!inside) return Corrupt("region " + std::to_string(i) + " lies outside the file");
    total += fields.bytes;  // each is at most the file's size: the sum cannot pass 2^64 unnoticed
    if (total > header.file_bytes) return Corrupt("the regions together are longer than the file");
    Region region = {static_cast<RegionKind>(fields.kind), fields.first, fields.count, fields.offset, fields.bytes, {}};
    std::memcpy(region.hash.data(), fields.hash, sizeof(fields.hash));
    regions.push_back(region);
  }
  return regions;
}

std::optional<std::string> KeyMismatch(const SnapshotKey& stored, const SnapshotKey& wanted) {
  if (stored.model != wanted.model) return "it belongs to another model file";
  if (stored.tokenizer != wanted.tokenizer) return "it belongs to another tokenizer";
  if (stored.kv_type != wanted.kv_type) return "its keys and values are kept in another precision (--kv-type)";
  if (stored.linear_path != wanted.linear_path) return "it was computed with other matrix products (--linear)";
  if (stored.arithmetic != wanted.arithmetic) return "it was computed by another version of the engine";
  if (!(stored == wanted)) return "its keys and values have another shape";
  return std::nullopt;
}

}  // namespace loopserve
