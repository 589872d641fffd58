// A file mapped into memory, read-only: how weights reach the model without being copied.
// Thread rule: immutable after Open. Ownership: the mapping lives as long as the object.
// A file that somebody else cuts short while it is mapped raises SIGBUS on access: the system offers no way to check.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "loopserve/status.h"

namespace loopserve {

class MappedFile {
 public:
  /// Maps a regular file. Errors: kNotFound, kIoError (no permission, or not a regular file: opening a FIFO does not
  /// block), kCorruptData (empty), kResourceExhausted (no address space).
  static Result<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_bytes_}; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  MappedFile(const uint8_t* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

  const uint8_t* data_;
  size_t size_bytes_;
};

}  // namespace loopserve
