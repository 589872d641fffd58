// Asking for memory before it is read. The hardware sees streams of neighbouring lines, but not across pages, and not
// rows that are picked from here and there. Thread rule: pure functions.
#pragma once

#include <cstddef>

namespace loopserve {

/// Brings `bytes` from `begin` on into the second level of cache: for more than the first holds, read after other work.
inline void FetchAhead(const void* begin, size_t bytes) {
  constexpr size_t kLineBytes = 64;
  constexpr int kSecondLevel = 2;
  for (size_t offset = 0; offset < bytes; offset += kLineBytes) {
    __builtin_prefetch(static_cast<const char*>(begin) + offset, 0, kSecondLevel);
  }
}

}  // namespace loopserve
