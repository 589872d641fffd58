// Chosen members of a zip archive that may come from anybody. Names in the archive decide nothing: a member is looked
// for by the name that the caller knows and written where the caller says; everything else in it is ignored.
// Thread rule: free function.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "loopserve/status.h"

namespace loopserve {

struct ZipMember {
  std::string name;              ///< exactly as in the archive
  std::filesystem::path target;  ///< its folder must exist
};

/// Against archives that unpack to more than a disk holds.
struct ZipLimits {
  int64_t member_bytes = int64_t{2} << 30;
  int64_t total_bytes = int64_t{8} << 30;
  int64_t members = 100'000;  ///< that the archive lists
};

/// Each target appears whole or not at all; those before a failure stay. on_bytes: bytes written so far, may be empty.
/// Errors: kCorruptData names the member and what is wrong: no archive, a truncated one, a member that is missing,
/// there twice, encrypted, no regular file, of another length than it says, of a wrong checksum or beyond the limits;
/// kResourceExhausted (the disk is full), kIoError, kCancelled.
Status ExtractZipMembers(const std::filesystem::path& archive, std::span<const ZipMember> members,
                         const ZipLimits& limits, const std::atomic<bool>* cancel,
                         const std::function<void(int64_t)>& on_bytes = {});

}  // namespace loopserve
