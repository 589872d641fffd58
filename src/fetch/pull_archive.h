// Files that are published together in one zip archive: downloaded with resume, checked, and those that are wanted
// unpacked into a folder of the cache. Thread rule: free function; several processes may pull at once.
#pragma once

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "loopserve/status.h"
#include "src/fetch/download.h"
#include "src/fetch/zip_members.h"

namespace loopserve {

struct ArchivePull {
  std::string name;  ///< of the folder in the cache
  /// The archive; or a path on the model hub, which begins with '/': the hub's checksum then holds.
  std::string url;
  std::vector<std::string> members;  ///< as in the archive, and below the folder; relative, without ".."
  std::string sha256;                ///< of the archive; empty: the hub's, else its length and CRCs alone are checked
  bool force = false;                ///< download even if all members are there
  std::filesystem::path cache_dir;   ///< empty: CacheDir()
  std::string hub_endpoint;          ///< empty: $HF_ENDPOINT, else the hub's own address
  std::string hub_token;             ///< empty: $HF_TOKEN; sent to the hub's endpoint only
  DownloadLimits limits;
  ZipLimits zip_limits;
  const std::atomic<bool>* cancel = nullptr;
};

/// The folder, with all members in it. The archive is deleted once they are, and where it is damaged; it stays where
/// the disk is full or the call was cancelled, for the next one. Errors: those of ParseUrl, Download and
/// ExtractZipMembers.
Result<std::string> PullArchive(const ArchivePull& request, const ProgressCallback& on_progress = {});

}  // namespace loopserve
