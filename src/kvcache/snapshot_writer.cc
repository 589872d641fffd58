#include "src/kvcache/snapshot_writer.h"

#include <fcntl.h>

#include <array>
#include <chrono>
#include <new>
#include <optional>
#include <utility>

#include "src/base/check.h"
#include "src/base/errno_status.h"
#include "src/kvcache/snapshot_plan.h"
#include "src/kvcache/snapshot_reader.h"

namespace loopserve {
namespace {

/// What is no longer referred to may take this much, and half of what is referred to besides, before the file is
/// written anew.
constexpr uint64_t kTolerableGarbageBytes = uint64_t{16} << 20;

int64_t UnixMs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

/// One save, from a plan to a file that has its regions, table and header.
class Writer {
 public:
  Writer(const SnapshotFolder& folder, int fd, std::string shown)
      : ops_(*folder.ops), fd_(fd), shown_(std::move(shown)) {}

  /// Writes what is missing from byte `end` on, and the table; `header` says afterwards where.
  Status WriteRegions(SnapshotPlan& plan, uint64_t end, SnapshotHeader* header) {
    std::vector<Region> regions;
    for (Planned& planned : plan) {
      if (planned.source) {
        const RegionSource& source = *planned.source;
        planned.region = {source.kind, source.first, source.count, end, BytesOf(source), HashOfParts(source.parts)};
        LS_RETURN_IF_ERROR(WriteAllAt(ops_, fd_, source.parts, end, shown_));
        end += planned.region.bytes;
      }
      regions.push_back(planned.region);
    }
    const std::vector<std::byte> table = EncodeTable(regions);
    LS_RETURN_IF_ERROR(WriteAllAt(ops_, fd_, std::array{std::span<const std::byte>(table)}, end, shown_));
    header->table_offset = end;
    header->n_regions = static_cast<uint32_t>(regions.size());
    header->table_hash = HashOf(table);
    header->file_bytes = end + table.size();
    return Status::Ok();
  }

  Status WriteSlot(std::span<const std::byte> slot, uint64_t generation) {
    return WriteAllAt(ops_, fd_, std::array{slot}, generation % 2 * kSlotBytes, shown_);
  }

  Status SyncData() {
    if (ops_.SyncData(fd_) != 0) return ErrnoStatus("cannot write " + shown_, errno);
    return Status::Ok();
  }

  /// Makes `header` the state that counts.
  /// Everything that it refers to must have been synced.
  Status CommitInPlace(const SnapshotHeader& header) {
    Status status = WriteSlot(EncodeSlot(header), header.generation);
    if (status.ok()) status = SyncData();
    if (status.ok()) return status;
    // The slot may be in memory and not on the disk: it must not be believed by the next save. Should this fail too,
    // the slot is valid or damaged: the new state or the old one.
    const std::array<std::byte, kSlotBytes> empty = {};
    if (WriteSlot(empty, header.generation).ok()) (void)SyncData();
    return status;
  }

 private:
  FileOps& ops_;
  int fd_;
  std::string shown_;
};

struct OldFile {
  UniqueFd fd;  ///< for writing
  std::optional<SnapshotReader> reader;
};

/// What is there under a name: nothing, something to append to, or something that may be replaced (no reader).
Result<OldFile> OpenOld(const SnapshotFolder& folder, const std::string& name) {
  const std::string shown = folder.Shown(name);
  OldFile old;
  Result<UniqueFd> fd = OpenRegularFile(*folder.ops, folder.fd.get(), name, O_RDWR, shown);
  if (!fd.ok() && fd.status().code() == StatusCode::kNotFound) return old;
  LS_RETURN_IF_ERROR(fd.status());
  old.fd = std::move(fd).value();
  UniqueFd copy(fcntl(old.fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return ErrnoStatus("cannot open " + shown, errno);
  std::array<std::byte, kSlotsBytes> slots;
  iovec part = {slots.data(), slots.size()};
  const ssize_t n = folder.ops->ReadAt(old.fd.get(), &part, 1, 0);
  if (n > 0 && !LooksLikeSnapshot(std::span(slots).first(static_cast<size_t>(n)))) {
    return Status(StatusCode::kInvalidArgument, shown + " exists and is no session file: it is not overwritten");
  }
  Result<SnapshotReader> reader = SnapshotReader::Read(*folder.ops, std::move(copy), shown);
  if (reader.ok()) {
    old.reader = std::move(reader).value();
  } else if (reader.status().code() != StatusCode::kCorruptData) {
    return reader.status();
  }
  return old;
}

Status WriteNewFile(const SnapshotFolder& folder, const std::string& name, SnapshotPlan& plan, SnapshotHeader* header) {
  const std::string temporary = TemporaryNameOf(name);
  FileOps& ops = *folder.ops;
  ops.UnlinkAt(folder.fd.get(), temporary.c_str());  // of a process that died: nobody else writes here now
  UniqueFd fd(ops.OpenAt(folder.fd.get(), temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus("cannot write " + folder.Shown(name), errno);
  const auto write = [&]() -> Status {
    Writer writer(folder, fd.get(), folder.Shown(name));
    const std::array<std::byte, kSlotBytes> empty = {};
    LS_RETURN_IF_ERROR(writer.WriteSlot(empty, header->generation + 1));
    LS_RETURN_IF_ERROR(writer.WriteRegions(plan, kSlotsBytes, header));
    LS_RETURN_IF_ERROR(writer.WriteSlot(EncodeSlot(*header), header->generation));
    if (ops.Sync(fd.get()) != 0) return ErrnoStatus("cannot write " + folder.Shown(name), errno);
    if (ops.RenameAt(folder.fd.get(), temporary.c_str(), name.c_str()) != 0)
      return ErrnoStatus("cannot rename to " + folder.Shown(name), errno);
    return Status::Ok();
  };
  if (const Status status = write(); !status.ok()) {
    ops.UnlinkAt(folder.fd.get(), temporary.c_str());
    return status;
  }
  return SyncFolder(ops, folder.fd.get(), folder.path);
}

Result<SnapshotWriteStats> Write(const SnapshotFolder& folder, const std::string& name, const SnapshotContent& content,
                                 const std::function<Status(uint64_t)>& admit) {
  LS_ASSIGN_OR_RETURN(OldFile old, OpenOld(folder, name));
  SnapshotHeader header;
  header.key = content.key;
  header.engine_version = content.engine_version;
  header.model_name = content.model_name;
  header.n_tokens = static_cast<uint64_t>(content.cache->n_tokens());
  header.saved_unix_ms = UnixMs();
  header.generation = 1;
  SnapshotPlan plan;
  SnapshotWriteStats stats;
  if (old.reader) {
    header.generation = old.reader->header().generation + 1;
    header.pinned = old.reader->header().pinned;
    if (old.reader->header().key == content.key) {
      plan = PlanSnapshot(old.reader->regions(), content);
      stats.file_bytes = old.reader->header().file_bytes + BytesToWrite(plan);
      const uint64_t live = LiveBytes(plan);
      stats.appended = stats.file_bytes - live <= live / 2 + kTolerableGarbageBytes && plan.size() <= kMaxRegions;
    }
  }
  if (!stats.appended) {
    plan = PlanSnapshot({}, content);
    stats.file_bytes = LiveBytes(plan);
    if (plan.size() > kMaxRegions) return Status(StatusCode::kInvalidArgument, "the dialogue is too long to be saved");
  }
  if (admit) LS_RETURN_IF_ERROR(admit(stats.file_bytes));
  for (const Planned& planned : plan) {
    (planned.source ? stats.written_bytes : stats.kept_bytes) +=
        planned.source ? BytesOf(*planned.source) : planned.region.bytes;
  }
  stats.written_bytes += TableBytes(plan) + (stats.appended ? kSlotBytes : kSlotsBytes);
  if (!stats.appended) {
    LS_RETURN_IF_ERROR(WriteNewFile(folder, name, plan, &header));
    return stats;
  }
  Writer writer(folder, old.fd.get(), folder.Shown(name));
  const uint64_t old_end = old.reader->header().file_bytes;
  Status status = writer.WriteRegions(plan, old_end, &header);
  if (status.ok()) status = writer.SyncData();
  if (!status.ok()) {
    // A full disk should not keep half of a state. Once a slot has been written this must not be done any more.
    (void)folder.ops->Truncate(old.fd.get(), static_cast<off_t>(old_end));
    return status;
  }
  LS_RETURN_IF_ERROR(writer.CommitInPlace(header));
  return stats;
}

}  // namespace

Result<SnapshotWriteStats> WriteSnapshot(const SnapshotFolder& folder, const std::string& name,
                                         const SnapshotContent& content,
                                         const std::function<Status(uint64_t file_bytes)>& admit) {
  LS_CHECK(content.cache != nullptr);
  try {
    return Write(folder, name, content, admit);
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "no memory to save " + folder.Shown(name));
  }
}

Status SetSnapshotPinned(const SnapshotFolder& folder, const std::string& name, bool pinned) {
  LS_ASSIGN_OR_RETURN(OldFile old, OpenOld(folder, name));
  const std::string shown = folder.Shown(name);
  if (!old.fd.valid()) return Status(StatusCode::kNotFound, "there is no " + shown);
  if (!old.reader) return Status(StatusCode::kCorruptData, shown + " is damaged");
  SnapshotHeader header = old.reader->header();
  if (header.pinned == pinned) return Status::Ok();
  header.pinned = pinned;
  ++header.generation;
  return Writer(folder, old.fd.get(), shown).CommitInPlace(header);
}

}  // namespace loopserve
