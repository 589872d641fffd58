#include "src/base/content_hash.h"

#include <xxhash.h>

#include <cstring>

#include "src/base/check.h"

namespace loopserve {
namespace {

ContentHash Canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  ContentHash bytes;
  static_assert(sizeof(canonical.digest) == sizeof(bytes));
  std::memcpy(bytes.data(), canonical.digest, bytes.size());
  return bytes;
}

}  // namespace

ContentHasher::ContentHasher() : state_(XXH3_createState()) {
  LS_CHECK(state_ != nullptr);
  LS_CHECK(XXH3_128bits_reset(state_) == XXH_OK);
}

ContentHasher::~ContentHasher() { XXH3_freeState(state_); }

void ContentHasher::Update(std::span<const std::byte> bytes) {
  LS_CHECK(XXH3_128bits_update(state_, bytes.data(), bytes.size()) == XXH_OK);
}

ContentHash ContentHasher::Finish() const { return Canonical(XXH3_128bits_digest(state_)); }

ContentHash HashOf(std::span<const std::byte> bytes) { return Canonical(XXH3_128bits(bytes.data(), bytes.size())); }

}  // namespace loopserve
