// Writes GGUF bytes with nothing checked, so that tests can write damaged and hostile files; and a file in memory that
// can be opened by name and changed byte by byte.
// Thread rule: one thread at a time.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "src/base/check.h"

namespace loopserve {

class RawGguf {
 public:
  RawGguf(uint64_t n_tensors, uint64_t n_keys, uint32_t version = 3) {
    bytes_ = "GGUF";
    Put(version).Put(n_tensors).Put(n_keys);
  }
  explicit RawGguf(std::string bytes) : bytes_(std::move(bytes)) {}

  template <typename T>
  RawGguf& Put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  RawGguf& Text(std::string_view text) {
    Put<uint64_t>(text.size());
    bytes_ += text;
    return *this;
  }
  RawGguf& Zeros(size_t n) {
    bytes_.append(n, '\0');
    return *this;
  }
  RawGguf& PadTo(size_t alignment) { return Zeros((alignment - bytes_.size() % alignment) % alignment); }

  // Keys; `type` is a gguf_type.
  RawGguf& Key(std::string_view key, uint32_t type) { return Text(key).Put(type); }
  RawGguf& Uint32(std::string_view key, uint32_t value) { return Key(key, 4).Put(value); }
  RawGguf& String(std::string_view key, std::string_view value) { return Key(key, 8).Text(value); }
  RawGguf& Array(std::string_view key, uint32_t element_type, uint64_t count) {
    return Key(key, 9).Put(element_type).Put(count);
  }

  /// A tensor's description; `type` is a ggml_type.
  RawGguf& Tensor(std::string_view name, std::initializer_list<int64_t> dims, uint32_t type, uint64_t offset) {
    Text(name).Put(static_cast<uint32_t>(dims.size()));
    for (const int64_t dim : dims) Put(dim);
    return Put(type).Put(offset);
  }

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

/// A file without a name in any folder: quick to write, and gone with the object.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content) : fd_(memfd_create("loopserve-test", MFD_CLOEXEC)) {
    LS_CHECK(fd_ >= 0);
    Write(content);
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  void Write(std::string_view content) {
    Resize(content.size());
    LS_CHECK(pwrite(fd_, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
  }
  void SetByte(size_t offset, char value) { LS_CHECK(pwrite(fd_, &value, 1, static_cast<off_t>(offset)) == 1); }
  void Resize(size_t size) { LS_CHECK(ftruncate(fd_, static_cast<off_t>(size)) == 0); }

 private:
  int fd_;
};

}  // namespace loopserve
