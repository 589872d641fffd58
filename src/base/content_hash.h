// XXH3 with 128 bits: finds damage, and tells whether bytes are those that a file has already, at the speed of memory.
// No protection against somebody who means to deceive: that is what sha256.h is for.
// Thread rule: one thread at a time per hasher; the free function is thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

struct XXH3_state_s;

namespace loopserve {

/// In the library's canonical form (big-endian, the same on every machine).
using ContentHash = std::array<uint8_t, 16>;

class ContentHasher {
 public:
  ContentHasher();
  ~ContentHasher();
  ContentHasher(const ContentHasher&) = delete;
  ContentHasher& operator=(const ContentHasher&) = delete;

  void Update(std::span<const std::byte> bytes);
  ContentHash Finish() const;

 private:
  XXH3_state_s* state_;
};

ContentHash HashOf(std::span<const std::byte> bytes);

}  // namespace loopserve
