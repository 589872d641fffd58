#include "src/fetch/pull_archive.h"

#include <algorithm>

#include "src/base/paths.h"
#include "src/fetch/file_lock.h"
#include "src/fetch/hub.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;

constexpr char kArchiveName[] = "archive.zip";

Result<DownloadRequest> ToDownload(const ArchivePull& request, const fs::path& target) {
  DownloadRequest download;
  const bool from_hub = request.url.starts_with('/');
  LS_ASSIGN_OR_RETURN(download.url, ParseUrl(from_hub ? HubEndpoint(request.hub_endpoint) + request.url : request.url));
  if (from_hub) {
    download.bearer_token = HubToken(request.hub_token);
    download.trust_origin_sha256 = true;
  }
  download.target = target;
  download.kind = kZipFile;
  LS_ASSIGN_OR_RETURN(download.sha256, ToSha256Hex(request.sha256));
  download.limits = request.limits;
  download.cancel = request.cancel;
  return download;
}

bool AllThere(const ArchivePull& request, const fs::path& folder) {
  return std::ranges::all_of(request.members, [&](const std::string& member) {
    std::error_code error;
    return fs::is_regular_file(folder / member, error);
  });
}

Status Unpack(const ArchivePull& request, const fs::path& archive, const fs::path& folder,
              const ProgressCallback& on_progress) {
  std::vector<ZipMember> members;
  for (const std::string& member : request.members) {
    members.push_back({member, folder / member});
    // Half of them new and half old would look like all of them.
    std::error_code ignored;
    if (request.force) fs::remove(members.back().target, ignored);
    LS_RETURN_IF_ERROR(CreateDirs(members.back().target.parent_path()));
  }
  return ExtractZipMembers(archive, members, request.zip_limits, request.cancel, [&](int64_t bytes) {
    if (on_progress) on_progress({.stage = PullStage::kUnpacking, .received_bytes = bytes});
  });
}

}  // namespace

Result<std::string> PullArchive(const ArchivePull& request, const ProgressCallback& on_progress) {
  try {
    fs::path cache = request.cache_dir;
    if (cache.empty()) {
      LS_ASSIGN_OR_RETURN(cache, CacheDir());
    }
    const fs::path folder = cache / request.name;
    const fs::path archive = folder / kArchiveName;
    LS_ASSIGN_OR_RETURN(const DownloadRequest download, ToDownload(request, archive));
    LS_ASSIGN_OR_RETURN(const FileLock lock,
                        FileLock::Acquire(cache / "locks" / (request.name + ".lock"), request.cancel, [&] {
                          if (on_progress) on_progress({.stage = PullStage::kWaitingForLock});
                        }));
    if (!request.force && AllThere(request, folder)) return folder.string();
    // An archive that could not be unpacked for want of space, or that was cancelled, is not downloaded again.
    const bool here =
        !request.force && fs::exists(archive) && VerifyFile(archive, kZipFile, download.sha256, request.cancel).ok();
    if (!here) LS_RETURN_IF_ERROR(Download(download, on_progress));
    const Status unpacked = Unpack(request, archive, folder, on_progress);
    if (unpacked.ok() || unpacked.code() == StatusCode::kCorruptData) {
      std::error_code ignored;
      fs::remove(archive, ignored);
    }
    LS_RETURN_IF_ERROR(unpacked.WithContext(download.url.ToString()));
    return folder.string();
  } catch (const std::exception& error) {
    return Status(StatusCode::kIoError, "cannot pull " + request.url + ": " + error.what());
  }
}

}  // namespace loopserve
