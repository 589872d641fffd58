// A cursor over bytes of a file that may be damaged: every read is checked against what is left. Little-endian.
// Thread rule: one owner.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace loopserve {

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t left() const { return bytes_.size(); }
  template <typename T>
  [[nodiscard]] bool Read(T* value) {
    return ReadArray(value, 1);
  }
  template <typename T>
  [[nodiscard]] bool ReadArray(T* values, size_t n) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (n > bytes_.size() / sizeof(T)) return false;
    if (n > 0) std::memcpy(values, bytes_.data(), n * sizeof(T));
    bytes_ = bytes_.subspan(n * sizeof(T));
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
};

template <typename T>
void AppendBytes(std::span<const T> values, std::vector<std::byte>* bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::span<const std::byte> source = std::as_bytes(values);
  bytes->insert(bytes->end(), source.begin(), source.end());
}

template <typename T>
void AppendValue(const T& value, std::vector<std::byte>* bytes) {
  AppendBytes(std::span<const T>(&value, 1), bytes);
}

}  // namespace loopserve
