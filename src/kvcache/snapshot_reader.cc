#include "src/kvcache/snapshot_reader.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <new>

#include "src/base/errno_status.h"

namespace loopserve {

Result<UniqueFd> OpenRegularFile(FileOps& ops, int dir_fd, const std::string& name, int flags,
                                 const std::string& shown) {
  if (name.find('\0') != std::string::npos) return Status(StatusCode::kNotFound, "the name contains a NUL byte");
  // O_NONBLOCK: opening a FIFO must not wait. It has no effect on regular files.
  UniqueFd fd(ops.OpenAt(dir_fd, name.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0));
  if (!fd.valid()) {
    if (errno == ELOOP) return Status(StatusCode::kIoError, shown + ": is a symbolic link");
    if (errno == EISDIR) return Status(StatusCode::kIoError, shown + ": is not a regular file");
    return ErrnoStatus("cannot open " + shown, errno);
  }
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus("cannot stat " + shown, errno);
  if (!S_ISREG(info.st_mode)) return Status(StatusCode::kIoError, shown + ": is not a regular file");
  return fd;
}

Result<SnapshotReader> SnapshotReader::Open(FileOps& ops, int dir_fd, const std::string& name,
                                            const std::string& shown) {
  LS_ASSIGN_OR_RETURN(UniqueFd fd, OpenRegularFile(ops, dir_fd, name, O_RDONLY, shown));
  return Read(ops, std::move(fd), shown);
}

Result<SnapshotReader> SnapshotReader::Read(FileOps& ops, UniqueFd fd, const std::string& shown) {
  SnapshotReader reader(ops, std::move(fd), shown);
  try {
    LS_RETURN_IF_ERROR(reader.ReadHead());
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, shown + ": no memory for its table");
  }
  return reader;
}

Status SnapshotReader::ReadHead() {
  struct stat info {};
  if (fstat(fd_.get(), &info) != 0) return ErrnoStatus("cannot stat " + shown_, errno);
  stored_bytes_ = static_cast<uint64_t>(std::max<off_t>(0, info.st_size));
  std::array<std::byte, kSlotsBytes> slots;
  const std::span<std::byte> head = std::span(slots).first(std::min<size_t>(kSlotsBytes, stored_bytes_));
  LS_RETURN_IF_ERROR(ReadAllAt(*ops_, fd_.get(), std::array{head}, 0, shown_));
  auto header = DecodeSlots(head);
  if (!header.ok()) return header.status().WithContext(shown_);
  header_ = std::move(header).value();
  if (stored_bytes_ < header_.file_bytes) {
    return Corrupt("the file was cut short: it has " + std::to_string(stored_bytes_) + " of " +
                   std::to_string(header_.file_bytes) + " bytes");
  }
  const uint64_t table_bytes = uint64_t{header_.n_regions} * kRegionEntryBytes;
  if (header_.n_regions > kMaxRegions || header_.table_offset > header_.file_bytes ||
      table_bytes > header_.file_bytes - header_.table_offset) {
    return Corrupt("the table of regions lies outside the file");
  }
  std::vector<std::byte> table(static_cast<size_t>(table_bytes));
  LS_RETURN_IF_ERROR(ReadAllAt(*ops_, fd_.get(), std::array{std::span(table)}, header_.table_offset, shown_));
  auto regions = DecodeTable(header_, table);
  if (!regions.ok()) return regions.status().WithContext(shown_);
  regions_ = std::move(regions).value();
  return Status::Ok();
}

Result<Region> SnapshotReader::Find(RegionKind kind, uint64_t first) const {
  const auto it = std::ranges::find_if(regions_, [&](const Region& r) { return r.kind == kind && r.first == first; });
  if (it == regions_.end())
    return Corrupt("a region of kind " + std::to_string(static_cast<uint32_t>(kind)) + " is missing");
  return *it;
}

Status SnapshotReader::ReadInto(const Region& region, std::span<const std::span<std::byte>> parts) const {
  LS_RETURN_IF_ERROR(ReadAllAt(*ops_, fd_.get(), parts, region.offset, shown_));
  ContentHash hash;
  if (parts.size() == 1) {
    hash = HashOf(parts[0]);
  } else {
    ContentHasher hasher;
    for (const std::span<std::byte>& part : parts) hasher.Update(part);
    hash = hasher.Finish();
  }
  if (hash == region.hash) return Status::Ok();
  return Corrupt("damaged: the " + std::to_string(region.bytes) + " bytes from byte " + std::to_string(region.offset) +
                 " on do not have their checksum");
}

Result<std::vector<std::byte>> SnapshotReader::ReadBytes(const Region& region) const {
  try {
    std::vector<std::byte> bytes(static_cast<size_t>(region.bytes));  // at most what the file has: DecodeTable
    LS_RETURN_IF_ERROR(ReadInto(region, std::array{std::span(bytes)}));
    return bytes;
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted,
                  shown_ + ": no memory for " + std::to_string(region.bytes) + " bytes");
  }
}

Result<std::string> SnapshotReader::ReadText(RegionKind kind) const {
  LS_ASSIGN_OR_RETURN(const Region region, Find(kind));
  LS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, ReadBytes(region));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace loopserve
